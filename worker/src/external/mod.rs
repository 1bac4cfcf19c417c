//! External programs: trains and evaluates with a program that the spec brings, in a process of its own.
//!
//! The program is given erased inputs and says what it predicts; selection and metrics are computed here. It
//! is not trusted to end, to be quiet, or to tell the truth: [`process`] bounds it, [`folder`] checks each
//! file that it names, and [`guard`] ends whatever it has started, even if this process is killed.

mod error;
mod evaluation;
mod folder;
pub(crate) mod guard;
mod inputs;
mod limits;
mod needs;
mod output;
mod process;
mod session;
mod training;
mod tree;

pub(crate) use self::{
    evaluation::evaluate,
    inputs::Inputs,
    limits::{GB, Limits},
    output::{Captured, OutputSink},
    training::{Start, train},
};
