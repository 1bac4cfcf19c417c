//! A case: one way of damaging the test split. Its text form (`r=0.3`, `missing=la`,
//! `block=0.5@1112`) is what specs, tables, the database, command lines and messages use; every case
//! has exactly one.

mod damage;
mod error;
mod kind;
mod mean;
mod modality;
mod number;
mod one;
mod order;
#[cfg(test)]
mod tests;

pub use damage::Damage;
pub use error::CaseError;
pub use kind::CaseKind;
pub use mean::CaseOrMean;
pub use modality::{MissingSet, Modality};
pub use number::{Level, Rate};
pub use one::Case;
