"""The same cases with our client against three brokers: ours in process, ours by TCP, Kafka."""
