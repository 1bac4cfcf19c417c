//! The results of a sweep as tables, figures, audits, statistics, exports and reports.

pub mod audit;
pub mod drawing;
pub mod export;
pub mod figures;
pub mod report;
pub mod statistics;
pub mod tables;
