//! Two and three whole brokers that copy from each other.

mod followers;
mod leaders;
mod planted;
mod rig;
mod schedules;
