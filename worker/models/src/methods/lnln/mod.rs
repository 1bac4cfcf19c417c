//! LNLN: the language-dominated noise-resistant learning network (Zhang et al., NeurIPS 2024), as
//! its authors' code computes it (`models/lnln.py`, `core/losses.py`, `train.py`).
//!
//! Language dominates, so its quality decides. Dominant modality correction (DMC) estimates how
//! complete the language is and mixes in a proxy made from audio and vision; a discriminator
//! compares the result with complete language. Dominant-modality based multimodal learning (DMML)
//! fuses. A reconstructor maps the features of erased inputs to those of the complete ones.
//!
//! The ablations of the paper's Tables 4 to 6 are switches of [`config::Config`]; what an ablation
//! removes is not built.

mod blocks;
mod config;
mod model;
mod training;

pub(super) use training::build;
