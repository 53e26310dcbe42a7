//! The server: sockets, dispatch, handlers, partitions and the metadata quorum.
