//! Faults that are planted in the product.

use ottla::env::sim::Mutation;

/// What is done wrong on purpose.
pub(crate) type Planted = Mutation;

pub(crate) fn plant(planted: Option<Planted>) {
    ottla::env::sim::plant(planted);
}
