//! The scripts of the fleet's upstream budget, on a real Redis server whose clock the tests set: against a model, and by what they
//! promise.

#![expect(clippy::cast_precision_loss, reason = "counts are small")]

mod fairness;
mod model;
mod property;
mod ranks;
mod server;
mod share;
mod sorted_set;
mod unaware;
