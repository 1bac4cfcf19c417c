//! The training procedure of methods with one loss between predictions and labels: ALMT, CENET,
//! LF-DNN and the text-only control.

use super::{
    Batch, Build, Inputs, Losses, Method, MethodError, MethodState, Position, StepOutcome, common,
    common::Loss,
};
use crate::{
    context::{EncoderCache, ForwardContext},
    optim::{Adam, AdamConfig, Group, WarmupCosine, clip_grad_norm},
};
use tch::{Tensor, nn};

/// A model that predicts.
pub(super) trait Model: std::fmt::Debug {
    /// Predictions `[B]`.
    fn forward(&self, input: &Inputs, context: ForwardContext<'_>) -> Tensor;
}

/// The training procedure's hyper-parameters.
#[derive(Clone, Copy, Debug)]
pub(super) struct Training {
    /// Samples per batch.
    pub(super) batch_size: usize,
    /// Epochs without a better validation loss before training stops; 0 disables early stopping.
    pub(super) early_stop: u32,
    /// The loss of training and validation.
    pub(super) loss: Loss,
    /// The maximum of the gradients' common norm.
    pub(super) max_grad_norm: Option<f64>,
}

/// The method.
#[derive(Debug)]
pub(super) struct SingleLoss<M> {
    vs: nn::VarStore,
    model: M,
    optimizer: Adam,
    schedule: Option<WarmupCosine>,
    training: Training,
}

impl<M: Model> SingleLoss<M> {
    /// A method with a constant learning rate.
    pub(super) fn new(vs: nn::VarStore, model: M, optimizer: Adam, training: Training) -> Self {
        Self {
            vs,
            model,
            optimizer,
            schedule: None,
            training,
        }
    }

    /// A method with AdamW on all parameters, warm-up and cosine annealing.
    pub(super) fn annealed(
        vs: nn::VarStore,
        model: M,
        [lr, weight_decay]: [f64; 2],
        build: &Build<'_>,
        training: Training,
    ) -> Self {
        let params = common::parameters(&vs);
        let group = Group {
            params,
            lr,
            weight_decay,
        };
        let mut optimizer = Adam::new("adamw", vec![group], AdamConfig::ADAMW);
        let schedule = WarmupCosine::new(build.max_epochs, build.faults, &mut optimizer);
        Self {
            schedule: Some(schedule),
            ..Self::new(vs, model, optimizer, training)
        }
    }
}

impl<M: Model> Method for SingleLoss<M> {
    fn vars(&self) -> &nn::VarStore {
        &self.vs
    }

    fn batch_size(&self) -> usize {
        self.training.batch_size
    }

    fn train_step(&mut self, _at: Position, batch: &Batch) -> Result<StepOutcome, MethodError> {
        self.optimizer.zero_grad();
        let prediction = self.model.forward(&batch.input, ForwardContext::TRAIN);
        let loss = self.training.loss.of(&prediction, &batch.labels);
        let losses = Losses::new(&[("loss", &loss)], &[]);
        loss.backward();
        if let Some(limit) = self.training.max_grad_norm {
            clip_grad_norm(&self.optimizer.gradients(), limit);
        }
        self.optimizer.step();
        Ok(StepOutcome {
            prediction: prediction.detach(),
            losses,
        })
    }

    fn predict(&self, batch: &Batch, cache: Option<&EncoderCache>) -> Result<Tensor, MethodError> {
        let context = ForwardContext::evaluation(cache);
        Ok(tch::no_grad(|| self.model.forward(&batch.input, context)))
    }

    fn validation_loss(&self, prediction: &Tensor, labels: &Tensor) -> f64 {
        self.training.loss.value(prediction, labels)
    }

    fn end_epoch(&mut self, _epoch: u32, _validation_loss: f64) -> Result<(), MethodError> {
        if let Some(schedule) = &mut self.schedule {
            schedule.step(&mut self.optimizer);
        }
        Ok(())
    }

    fn patience(&self) -> Option<u32> {
        common::patience(self.training.early_stop)
    }

    fn state(&self) -> Result<MethodState, MethodError> {
        let mut state = common::save(&self.vs, &[&self.optimizer]);
        if let Some(schedule) = &self.schedule {
            schedule.save(&mut state);
        }
        Ok(state)
    }

    fn restore(&mut self, state: &MethodState) -> Result<(), MethodError> {
        common::restore(&self.vs, &mut [&mut self.optimizer], state)?;
        match &mut self.schedule {
            Some(schedule) => schedule.load(state),
            None => Ok(()),
        }
    }
}
