"""The border between bytes on Kafka and arrays in memory: generated messages, codec, connection, topics."""
