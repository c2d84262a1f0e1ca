//! The scripts of the fleet's upstream budget, on a real Redis server whose clock the tests set: against a model, and by what they
//! promise.

mod model;
mod property;
mod server;
mod sorted_set;
