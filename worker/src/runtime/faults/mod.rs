//! Faults of the worker, as opposed to failures of its jobs.

mod classify;
mod data_folder;
mod last_fault;

pub(super) use self::{
    classify::{input_fault, store_fault, training_fault},
    data_folder::{data_folder_fault, probe_data_folder},
    last_fault::{LastFault, Requirement},
};
