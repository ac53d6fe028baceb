"""How to reach Kafka: one set of settings, TLS and SASL included, for kafka-python and for Flink's Java clients.

Every field is also read from the environment as SPIKELOOM_KAFKA_<FIELD>.
"""

from typing import Literal

from pydantic_settings import BaseSettings, SettingsConfigDict

FLINK_SHADED = "org.apache.flink.kafka.shaded"  # where Flink's connector keeps its copy of the Kafka client


class KafkaConnection(BaseSettings):
    model_config = SettingsConfigDict(env_prefix="SPIKELOOM_KAFKA_", extra="forbid", frozen=True)

    bootstrap: str = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    ssl_cafile: str | None = None  # PEM
    ssl_certfile: str | None = None  # PEM: certificate chain and, for Java, the unencrypted key in the same file
    ssl_keyfile: str | None = None  # PEM, kafka-python only
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: str | None = None

    def python_client(self) -> dict[str, object]:
        """Keyword arguments of every kafka-python client."""
        options: dict[str, object] = {
            "bootstrap_servers": self.bootstrap.split(","),
            "security_protocol": self.security_protocol,
        }
        for name in ("ssl_cafile", "ssl_certfile", "ssl_keyfile", "sasl_mechanism"):
            if getattr(self, name) is not None:
                options[name] = getattr(self, name)
        if self.sasl_mechanism:
            options |= {"sasl_plain_username": self.sasl_username, "sasl_plain_password": self.sasl_password}
        return options

    def java_client(self) -> dict[str, str]:
        """Properties of every Kafka client inside Flink."""
        properties = {"bootstrap.servers": self.bootstrap, "security.protocol": self.security_protocol}
        if self.ssl_cafile:
            properties |= {"ssl.truststore.type": "PEM", "ssl.truststore.location": self.ssl_cafile}
        if self.ssl_certfile:
            properties |= {"ssl.keystore.type": "PEM", "ssl.keystore.location": self.ssl_certfile}
        if self.sasl_mechanism:
            module = "plain.PlainLoginModule" if self.sasl_mechanism == "PLAIN" else "scram.ScramLoginModule"
            user, password = (_quote(value or "") for value in (self.sasl_username, self.sasl_password))
            properties |= {
                "sasl.mechanism": self.sasl_mechanism,
                "sasl.jaas.config": f"{FLINK_SHADED}.org.apache.kafka.common.security.{module} required "
                f"username={user} password={password};",
            }
        return properties


def _quote(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
