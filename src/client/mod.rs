//! The async client: connections, producer, consumer, scan and admin.
