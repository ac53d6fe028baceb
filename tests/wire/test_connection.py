"""TLS and SASL settings reach both kinds of Kafka client."""

import pytest

from wire.connection import KafkaConnection


def test_settings_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPIKELOOM_KAFKA_BOOTSTRAP", "a:1,b:2")
    monkeypatch.setenv("SPIKELOOM_KAFKA_SECURITY_PROTOCOL", "SASL_SSL")
    monkeypatch.setenv("SPIKELOOM_KAFKA_SSL_CAFILE", "/ca.pem")
    monkeypatch.setenv("SPIKELOOM_KAFKA_SASL_MECHANISM", "SCRAM-SHA-512")
    monkeypatch.setenv("SPIKELOOM_KAFKA_SASL_USERNAME", "ann")
    monkeypatch.setenv("SPIKELOOM_KAFKA_SASL_PASSWORD", 'a"b\\c')
    connection = KafkaConnection()
    assert connection.python_client() == {
        "bootstrap_servers": ["a:1", "b:2"],
        "security_protocol": "SASL_SSL",
        "ssl_cafile": "/ca.pem",
        "sasl_mechanism": "SCRAM-SHA-512",
        "sasl_plain_username": "ann",
        "sasl_plain_password": 'a"b\\c',
    }
    java = connection.java_client()
    assert java["ssl.truststore.location"] == "/ca.pem"
    assert java["sasl.mechanism"] == "SCRAM-SHA-512"
    assert java["sasl.jaas.config"].endswith('ScramLoginModule required username="ann" password="a\\"b\\\\c";')
