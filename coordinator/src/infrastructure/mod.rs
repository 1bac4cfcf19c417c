//! Somebody else's Postgres, broker and artifact store: what they allow, and what must be changed for
//! Halfheard to work on them.

pub(crate) mod broker;
pub(crate) mod database;
mod remark;
mod startup;
pub(crate) mod store;

pub(crate) use remark::{Remark, Weight};
pub(crate) use startup::check;
