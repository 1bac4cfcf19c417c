//! The results of a sweep as tables, figures, audits, statistics, exports and reports: functions of
//! [`halfheard_shared::results`], without database and network.

pub mod audit;
pub mod certify;
pub mod export;
pub mod figures;
pub mod report;
pub mod statistics;
pub mod tables;
