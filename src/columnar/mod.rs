//! Record batches to Arrow and back.
