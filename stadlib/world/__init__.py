"""A miniature world of drawn people, written to disk in AVA-Kinetics' official layout.

A world is named by its :class:`~stadlib.world.spec.WorldSpec`: numbers only. It contains

- AVA-like movies: still or slowly panning, dim, one to five people, a keyframe every second;
- Kinetics-like clips: hand-held, bright, one keyframe each;
- close-ups in Kinetics' layout, two classification sets that stand for K400 and K700;
- pictures in COCO's layout, for a person detector.

``script`` deals the cards of a split to its videos, ``story`` plays the cards and ``actions``
moves the bodies. ``render`` draws frames out of ``scenery``, ``objects`` and ``figures``,
``annotate`` finds boxes and labels, ``sets`` writes everything. ``world.toml`` and ``objects.csv``
hold the numbers: shares of stories, limbs of every activity, strokes of every thing.
"""
