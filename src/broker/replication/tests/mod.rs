//! Two and three whole brokers that copy from each other, on simulated machines.
#![cfg(feature = "sim")]

mod followers;
mod leaders;
mod nearby;
mod planted;
mod rig;
mod schedules;
mod throttled;
