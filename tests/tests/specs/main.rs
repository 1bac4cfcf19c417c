//! What specs bring and ask for: datasets, encoders, cases, regimes, programs and predictions of others.

mod damage_cases;
mod encoders;
mod erasure_parity;
mod external_programs;
mod external_specs;
mod imported_predictions;
mod own_dataset;
mod selection_both;
mod training_regimes;
