//! What comes out of finished sweeps, as files, tables, figures and verdicts.

mod audit;
mod certify;
mod export;
mod figures;
mod own_results;
mod published;
mod report;
mod snapshots;
mod tables;
mod trackers;
