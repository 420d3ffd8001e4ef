"""The models: backbones, RoIAlign that keeps time, heads, and the detector made of them."""
