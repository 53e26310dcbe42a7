//! Record batches (magic 2) as bytes.
