//! What machines watch: the metrics of both programs, whether they live and can work, over HTTP.

pub mod access;
pub mod catalogue;
pub mod exposition;
pub mod http;
pub mod pulse;
pub mod recorder;
pub mod traces;
