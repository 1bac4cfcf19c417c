//! The losses and the training procedure.

use super::{
    config::Config,
    model::{Comparison, Model},
};
use crate::{
    context::EncoderCache,
    methods::{
        Batch, Build, Features, Losses, Method, MethodError, MethodState, Needs, Position,
        StepOutcome,
        common::{self, Loss},
    },
    optim::{Adam, AdamConfig, Group, WarmupCosine},
};
use tch::{Kind, Tensor, nn};

const METHOD: &str = "lnln";

/// The method.
#[derive(Debug)]
struct Lnln {
    vs: nn::VarStore,
    model: Model,
    optimizer: Adam,
    schedule: WarmupCosine,
    config: Config,
}

/// Builds LNLN.
pub(in crate::methods) fn build(build: &Build<'_>) -> Result<Box<dyn Method>, MethodError> {
    let mut config: Config = common::config(METHOD, build)?;
    config.precision = build.precision;
    let vs = nn::VarStore::new(build.device);
    let model = Model::new(&vs.root(), &config, build)?;
    let mut optimizer = Adam::new(
        "adamw",
        vec![Group {
            params: common::parameters(&vs),
            lr: config.learning_rate,
            weight_decay: config.weight_decay,
        }],
        AdamConfig::ADAMW,
    );
    let schedule = WarmupCosine::new(build.max_epochs, build.faults, &mut optimizer);
    Ok(Box::new(Lnln {
        vs,
        model,
        optimizer,
        schedule,
        config,
    }))
}

impl Lnln {
    /// The weighted sum of the losses, then its parts.
    fn losses(
        &self,
        prediction: &Tensor,
        comparison: &Comparison,
        batch: &Batch,
    ) -> Vec<(&'static str, Tensor)> {
        let mse = |a: &Tensor, b: &Tensor| Loss::Mse.of(a, b);
        let mut parts = vec![("l_sp", self.config.sigma, mse(prediction, &batch.labels))];
        if let Some(completeness) = &comparison.completeness
            && self.config.alpha != 0.0
        {
            let target = if self.config.train_missing {
                1.0 - batch.missing_rate.text.unsqueeze(1)
            } else {
                completeness.ones_like()
            };
            parts.push(("l_cc", self.config.alpha, mse(completeness, &target)));
        }
        if let Some(logits) = &comparison.effectiveness {
            // The discriminator's classes: 1 for corrected features, 0 for complete language.
            let rows = logits.size()[0];
            let target = Tensor::zeros([rows], (Kind::Int64, logits.device()));
            let _ = target.narrow(0, 0, rows / 2).fill_(1);
            let part = logits.cross_entropy_for_logits(&target);
            parts.push(("l_adv", self.config.beta, part));
        }
        // Equation 12: the mean over the modalities.
        let rebuilt = comparison.reconstruction.iter();
        if let Some(sum) = rebuilt.map(|(x, truth)| mse(x, truth)).reduce(|a, b| a + b) {
            let mean = match comparison.reconstruction.len() {
                1 => sum,
                modalities => sum / modalities as f64,
            };
            parts.push(("l_rec", self.config.gamma, mean));
        }
        let loss = parts.iter().map(|(_, weight, part)| part * *weight).sum();
        std::iter::once(("loss", loss))
            .chain(parts.into_iter().map(|(name, _, part)| (name, part)))
            .collect()
    }
}

impl Method for Lnln {
    fn vars(&self) -> &nn::VarStore {
        &self.vs
    }

    fn needs(&self) -> Needs {
        Needs {
            complete_in_training: self.config.adversarial()
                || self.config.reconstructs()
                || !self.config.train_missing,
            complete_in_evaluation: false,
        }
    }

    fn trains_on_complete_inputs(&self) -> bool {
        !self.config.train_missing
    }

    fn batch_size(&self) -> usize {
        self.config.batch_size
    }

    fn train_step(&mut self, _at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        let complete = if self.needs().complete_in_training {
            common::complete(METHOD, batch)?
        } else {
            &batch.input
        };
        let input = if self.config.train_missing {
            &batch.input
        } else {
            complete
        };
        self.optimizer.zero_grad();
        let (prediction, comparison) = self.model.forward_training(input, complete);
        let parts = self.losses(&prediction, &comparison, batch);
        let named: Vec<(&'static str, &Tensor)> = parts.iter().map(|(n, t)| (*n, t)).collect();
        let losses = Losses::new(&named, &[]);
        parts[0].1.backward();
        self.optimizer.step();
        Ok(StepOutcome {
            prediction: prediction.detach(),
            losses,
        })
    }

    fn predict(&self, batch: &Batch, cache: Option<&EncoderCache>) -> Result<Tensor, MethodError> {
        Ok(self.predict_with_features(batch, cache)?.0)
    }

    fn predict_with_features(
        &self,
        batch: &Batch,
        cache: Option<&EncoderCache>,
    ) -> Result<(Tensor, Option<Features>), MethodError> {
        Ok(tch::no_grad(|| {
            self.model.forward_evaluation(&batch.input, cache)
        }))
    }

    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64 {
        Loss::Mse.value(prediction, labels)
    }

    fn end_epoch(&mut self, _epoch: u32, _validation_loss: f64) -> Result<(), MethodError> {
        self.schedule.step(&mut self.optimizer);
        Ok(())
    }

    fn patience(&self) -> Option<u32> {
        common::patience(self.config.early_stop)
    }

    fn state(&self) -> Result<MethodState, MethodError> {
        let mut state = common::save(&self.vs, &[&self.optimizer]);
        self.schedule.save(&mut state);
        Ok(state)
    }

    fn restore(&mut self, state: &MethodState) -> Result<(), MethodError> {
        common::restore(&self.vs, &mut [&mut self.optimizer], state)?;
        self.schedule.load(state)
    }
}
