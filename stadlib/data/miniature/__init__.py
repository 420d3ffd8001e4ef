"""A miniature world of drawn people, written to disk in AVA-Kinetics' official layout.

Everything is rendered from a seed: movies like AVA's (a keyframe every second, still camera, dim
light) and clips like Kinetics' (one keyframe each, larger figures, hand-held camera, bright light),
with thirty of AVA's actions under AVA's ids and names, a classification set for pretraining, and
still pictures in COCO's layout for the person detector.

The world is *built to contain* what the paper's methods are for, so it shows that an implementation
exploits these structures, not that the paper's claims hold on real video:

- Relations. Who looks at a talking person listens (74), who looks at a person doing something else
  watches (80), who looks at nobody does neither; all three look the same themselves. Giving and
  taking, a fight and a martial art performed alone, differ by the other person as well.
- Memory. Talking, reading, phoning, eating and the like last 8 to 24 seconds while they show in
  bursts; at 35 to 45 % of their keyframes nothing is to be seen within a second. Clothes tell
  persons apart across the gaps.
- A long tail (about 150:1), dealt by quotas rather than left to luck (:mod:`.classes`), and
  person-like things in the backgrounds, so that detecting persons takes more than finding limbs.
"""

from stadlib.data.miniature.pretraining import render_pretraining
from stadlib.data.miniature.spec import MINI, SMOKE, WorldSpec
from stadlib.data.miniature.stills import render_stills
from stadlib.data.miniature.world import render_world, write_person_boxes

__all__ = [
    "MINI",
    "SMOKE",
    "WorldSpec",
    "render_pretraining",
    "render_stills",
    "render_world",
    "write_person_boxes",
]
