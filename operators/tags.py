"""Types of what flows between operators, and the side outputs."""

from pyflink.common import Types
from pyflink.datastream import OutputTag

RECORD = Types.PRIMITIVE_ARRAY(Types.BYTE())
KEYED_RECORD = Types.ROW([Types.INT(), RECORD])  # with a Flink key in front

BRAIN_WAVES = OutputTag("brain-waves", RECORD)
DEAD_LETTERS = OutputTag("dead-letters", RECORD)
WITNESSES = OutputTag("witnesses", RECORD)
