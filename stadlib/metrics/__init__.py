"""Frame mAP as the official AVA-Kinetics evaluator computes it, and as three others do.

``rows`` reads files, ``protocols`` says what the evaluators disagree on, ``evaluated`` picks the
rows that count, ``matching`` decides once which detections are right, ``average_precision`` turns
that into numbers, ``resampling`` into intervals; ``diagnosis`` says where AP is lost.
"""

from stadlib.metrics.average_precision import Result, frame_map, result, tie_interval
from stadlib.metrics.diagnosis import diagnose
from stadlib.metrics.matching import Matches, match
from stadlib.metrics.person_boxes import person_ap
from stadlib.metrics.protocols import PROTOCOLS, Protocol, protocol
from stadlib.metrics.resampling import Bootstrap, bootstrap, bootstrap_classes
from stadlib.metrics.rows import COLUMNS, NO_LABEL, keyframe_keys, read_excluded, read_rows, table

__all__ = [
    "COLUMNS",
    "NO_LABEL",
    "PROTOCOLS",
    "Bootstrap",
    "Matches",
    "Protocol",
    "Result",
    "bootstrap",
    "bootstrap_classes",
    "diagnose",
    "frame_map",
    "keyframe_keys",
    "match",
    "person_ap",
    "protocol",
    "read_excluded",
    "read_rows",
    "result",
    "table",
    "tie_interval",
]
