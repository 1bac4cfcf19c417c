//! Workers on real servers: jobs, leases, devices, signals and faults.

mod devices;
mod evaluations;
mod faults;
mod jobs;
mod leases;
mod outages;
mod processors;
mod signals;
mod versions;
