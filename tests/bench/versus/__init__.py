"""The same work against ottla and against what a user would use today, in one run.

``python -m versus --help``, or ``make versus``. Apache Kafka is started from the jars in the folder
that ``OTTLA_KAFKA_LIBS`` names. Every figure is the median of interleaved rounds on one machine.
``OTTLA_BIN`` names an ``ottla`` program to use instead of the wheel's, which runs inside Python.
"""
