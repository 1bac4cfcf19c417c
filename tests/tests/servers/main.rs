//! Where it runs: brokers, databases, logins, installations, deployment files and Slurm.

mod artifact_bucket;
mod broker_tls;
mod database_tls;
mod deploy_compose;
mod deploy_units;
mod installations;
mod nats_artifacts;
mod nats_conf;
mod secrets;
mod slurm;
mod slurm_real;
