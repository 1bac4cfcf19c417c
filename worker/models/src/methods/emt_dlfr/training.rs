//! The training procedure: gradients of four batches accumulate, each of both views.

use super::{config::Config, model::Model};
use crate::{
    context::EncoderCache,
    methods::{
        Batch, Build, Losses, Method, MethodError, MethodState, Needs, Position, ReferenceErasure,
        ReferenceValidation, StepOutcome,
        common::{self, Accumulation, Loss},
        multi_task::{Rate, groups},
    },
    optim::{Adam, AdamConfig},
};
use tch::{Tensor, nn};

const METHOD: &str = "emt-dlfr";

/// The method.
#[derive(Debug)]
struct EmtDlfr {
    vs: nn::VarStore,
    model: Model,
    optimizer: Adam,
    accumulation: Accumulation,
    config: Config,
}

/// Builds EMT-DLFR.
pub(in crate::methods) fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let config: Config = common::config(METHOD, build)?;
    let vs = nn::VarStore::new(build.device);
    let model = Model::new(&(vs.root() / "Model"), &config, build)?;
    let rate = |lr, weight_decay| Rate { lr, weight_decay };
    let rates = [
        rate(config.learning_rate_bert, config.weight_decay_bert),
        rate(config.learning_rate_audio, config.weight_decay_audio),
        rate(config.learning_rate_video, config.weight_decay_video),
        rate(config.learning_rate_other, config.weight_decay_other),
    ];
    let optimizer = Adam::new("adam", groups(&vs, rates), AdamConfig::ADAM);
    Ok(Box::new(EmtDlfr {
        accumulation: Accumulation::new(config.update_epochs, build.faults),
        vs,
        model,
        optimizer,
        config,
    }))
}

impl Method for EmtDlfr {
    fn vars(&self) -> &nn::VarStore {
        &self.vs
    }

    fn needs(&self) -> Needs {
        Needs {
            complete_in_training: true,
            complete_in_evaluation: false,
        }
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn prepare(&mut self, batch: &Batch) -> Result<(), MethodError> {
        let complete = common::complete(METHOD, batch)?;
        tch::no_grad(|| self.model.prepare(complete, &batch.present));
        Ok(())
    }

    fn begin_pass(&mut self, _at: Position) -> Result<(), MethodError> {
        self.accumulation.reset();
        Ok(())
    }

    fn train_step(&mut self, _at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        let complete = common::complete(METHOD, batch)?;
        if self.accumulation.begin() {
            self.optimizer.zero_grad();
        }
        let (prediction, parts) = self.model.forward_training(batch, complete);
        let loss = &parts.task
            + &parts.attraction * self.config.loss_attra_weight
            + &parts.reconstruction * self.config.loss_recon_weight;
        let losses = Losses::new(
            &[
                ("loss", &loss),
                ("task", &parts.task),
                ("attraction", &parts.attraction),
                ("reconstruction", &parts.reconstruction),
            ],
            &[],
        );
        loss.backward();
        if self.accumulation.end() {
            self.optimizer.step();
        }
        Ok(StepOutcome {
            prediction: prediction.detach(),
            losses,
        })
    }

    fn end_pass(&mut self, _at: Position) -> Result<(), MethodError> {
        if self.accumulation.end_pass() {
            self.optimizer.step();
        }
        Ok(())
    }

    fn predict(&self, batch: &Batch, cache: Option<&EncoderCache>) -> Result<Tensor, MethodError> {
        Ok(tch::no_grad(|| self.model.predict(batch, cache)))
    }

    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64 {
        Loss::L1.value(prediction, labels)
    }

    /// One rate for all splits in each run; the mean is not rounded (`trains/missingTask/EMT_DLFR.py`).
    fn reference_validation(&self) -> ReferenceValidation {
        ReferenceValidation {
            erasure: ReferenceErasure::AsTrained { otherwise: None },
            rounded: false,
        }
    }

    fn patience(&self) -> Option<u32> {
        common::patience(self.config.early_stop)
    }

    fn can_save(&self) -> bool {
        self.accumulation.is_empty()
    }

    fn state(&self) -> Result<MethodState, MethodError> {
        Ok(common::save(&self.vs, &[&self.optimizer]))
    }

    fn restore(&mut self, state: &MethodState) -> Result<(), MethodError> {
        self.accumulation.reset();
        common::restore(&self.vs, &mut [&mut self.optimizer], state)
    }
}
