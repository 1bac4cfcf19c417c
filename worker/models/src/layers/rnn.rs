//! LSTMs and GRUs over sequences of different lengths, as `torch.nn.LSTM` and `torch.nn.GRU` run
//! them on packed sequences.
//!
//! libtorch packs only sequences sorted by decreasing length. Like PyTorch with
//! `enforce_sorted=False`, these functions sort the samples and restore their order.

use super::{dropout::dropout, gru};
use crate::lengths::Lengths;
use tch::{Device, Kind, Tensor, nn};

/// The kind of cell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Long short-term memory: four gates.
    Lstm,
    /// Gated recurrent unit: three gates.
    Gru,
}

/// The configuration of a recurrent network.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct RnnConfig {
    /// Its cells.
    pub cell: Cell,
    /// Features per step.
    pub input: i64,
    /// Features of the hidden state per direction.
    pub hidden: i64,
    /// Layers.
    pub layers: i64,
    /// Whether to run in both directions.
    pub bidirectional: bool,
    /// Dropout between layers.
    pub dropout: f64,
}

/// A recurrent network, with PyTorch's weight names: `weight_ih_l0`, `bias_hh_l0_reverse`.
#[derive(Debug)]
pub(crate) struct Rnn {
    config: RnnConfig,
    weights: Vec<Tensor>,
}

/// Sequences of a batch, sorted by decreasing length and packed.
#[derive(Debug)]
pub(crate) struct Packed {
    /// The steps that are not padding, `[steps, features]`.
    data: Tensor,
    /// The number of sequences that reach each time step, on the CPU.
    batch_sizes: Tensor,
    order: Order,
}

/// The permutation that sorts a batch by length.
#[derive(Debug)]
pub(crate) struct Order {
    /// Decreasing lengths, `[B]` int64 on the CPU.
    lengths: Tensor,
    /// Indices of the sorted samples in the batch, `[B]` int64.
    sorted: Tensor,
    /// The inverse permutation.
    unsorted: Tensor,
}

impl Order {
    /// Sorts by `lengths`, `[B]`.
    pub(crate) fn new(lengths: &Lengths) -> Self {
        let (_, sorted) = lengths.device().to_kind(Kind::Int64).sort(0, true);
        Self {
            lengths: lengths.decreasing(),
            unsorted: sorted.argsort(0, false),
            sorted,
        }
    }
}

impl Packed {
    /// Packs `x`, `[B, T, D]`, by `lengths`, `[B]`, each 1 to T.
    pub(crate) fn new(x: &Tensor, lengths: &Lengths) -> Self {
        Self::with_order(x, Order::new(lengths))
    }

    fn with_order(x: &Tensor, order: Order) -> Self {
        let (data, batch_sizes) = x
            .index_select(0, &order.sorted)
            .internal_pack_padded_sequence(&order.lengths, true);
        Self {
            data,
            batch_sizes,
            order,
        }
    }

    /// The sequences as a padded batch `[B, longest, D]` in the original order.
    pub(crate) fn unpack(&self) -> Tensor {
        self.unpack_to(0)
    }

    /// As [`unpack`](Self::unpack), padded to at least `steps`.
    pub(crate) fn unpack_to(&self, steps: i64) -> Tensor {
        let (padded, _) =
            Tensor::internal_pad_packed_sequence(&self.data, &self.batch_sizes, true, 0.0, steps);
        padded.index_select(0, &self.order.unsorted)
    }

    fn on_cpu(&self) -> bool {
        (self.data.device(), self.data.kind()) == (Device::Cpu, Kind::Float)
    }

    /// Packs another batch with the same lengths, `[B, T, E]`.
    pub(crate) fn repack(self, x: &Tensor) -> Self {
        Self::with_order(x, self.order)
    }
}

impl Rnn {
    /// A network with initial weights, uniform in ±1/√hidden as in PyTorch.
    pub(crate) fn new(path: &nn::Path<'_>, config: RnnConfig) -> Self {
        let bound = 1.0 / (config.hidden as f64).sqrt();
        let init = nn::Init::Uniform {
            lo: -bound,
            up: bound,
        };
        let directions: &[&str] = if config.bidirectional {
            &["", "_reverse"]
        } else {
            &[""]
        };
        let mut weights = Vec::new();
        let gates = match config.cell {
            Cell::Lstm => 4,
            Cell::Gru => 3,
        };
        for layer in 0..config.layers {
            let input = match layer {
                0 => config.input,
                _ => config.hidden * directions.len() as i64,
            };
            for direction in directions {
                let mut add = |name: &str, dims: &[i64]| {
                    weights.push(path.var(&format!("{name}_l{layer}{direction}"), dims, init));
                };
                add("weight_ih", &[gates * config.hidden, input]);
                add("weight_hh", &[gates * config.hidden, config.hidden]);
                add("bias_ih", &[gates * config.hidden]);
                add("bias_hh", &[gates * config.hidden]);
            }
        }
        Self { config, weights }
    }

    /// Runs over packed sequences. Returns the outputs, packed, with `hidden` features a direction,
    /// and the final hidden states `[layers * directions, B, hidden]` in the batch's order.
    pub(crate) fn forward(&self, input: Packed, train: bool) -> (Packed, Tensor) {
        let over_padding = match self.config.cell {
            Cell::Lstm => self.lstm_over_padding(&input, train),
            Cell::Gru => self.gru_over_padding(&input, train),
        };
        let (data, hidden) = match over_padding {
            Some(result) => result,
            None => self.over_packed(&input, train),
        };
        let hidden = hidden.index_select(1, &input.order.unsorted);
        (Packed { data, ..input }, hidden)
    }

    /// The packed outputs of sorted samples, and their final hidden states.
    fn over_packed(&self, input: &Packed, train: bool) -> (Tensor, Tensor) {
        let zeros = self.zeros(input.order.sorted.size()[0], &input.data);
        let weights: Vec<&Tensor> = self.weights.iter().collect();
        let config = &self.config;
        match config.cell {
            Cell::Lstm => {
                let (data, hidden, _cell) = Tensor::lstm_data(
                    &input.data,
                    &input.batch_sizes,
                    &[&zeros, &zeros],
                    &weights,
                    true,
                    config.layers,
                    config.dropout,
                    train,
                    config.bidirectional,
                );
                (data, hidden)
            }
            Cell::Gru => Tensor::gru_data(
                &input.data,
                &input.batch_sizes,
                &zeros,
                &weights,
                true,
                config.layers,
                config.dropout,
                train,
                config.bidirectional,
            ),
        }
    }

    /// The same, for an LSTM of one layer on the CPU: its states do not depend on padding behind them.
    ///
    /// Over packed samples, libtorch computes step after step, and on the way back adds up gradients for each step that
    /// are as large as the batch. Over a padded batch, oneDNN computes all steps at once, both ways.
    fn lstm_over_padding(&self, input: &Packed, train: bool) -> Option<(Tensor, Tensor)> {
        let config = &self.config;
        if !input.on_cpu() || config.layers > 1 {
            return None;
        }
        // [T, B, D], as oneDNN has it.
        let (padded, _) =
            Tensor::internal_pad_packed_sequence(&input.data, &input.batch_sizes, false, 0.0, 0);
        let lengths = &input.order.lengths;
        let at = |steps: &Tensor, features: i64| {
            let size = [steps.size()[0], steps.size()[1], features];
            steps.unsqueeze(2).expand(size, false)
        };
        let ends = at(&(lengths - 1).unsqueeze(0), config.hidden);
        // From each sample's last step to its first; padding stays where it is.
        let backwards = config.bidirectional.then(|| {
            let steps = Tensor::arange(padded.size()[0], (Kind::Int64, Device::Cpu)).unsqueeze(1);
            let backwards = lengths - &steps - 1;
            backwards.where_self(&backwards.ge(0), &steps)
        });
        let (mut outputs, mut last) = (Vec::new(), Vec::new());
        for (order, weights) in [None, backwards.as_ref()]
            .iter()
            .zip(self.weights.chunks(4))
        {
            let turned = |x: Tensor| match order {
                None => x,
                Some(order) => x.gather(0, &at(order, x.size()[2]), false),
            };
            let output = self.run(&turned(padded.shallow_clone()), weights, false, train);
            last.push(output.gather(0, &ends, false));
            outputs.push(turned(output));
        }
        let (data, _) = Tensor::cat(&outputs, 2).internal_pack_padded_sequence(lengths, false);
        Some((data, Tensor::cat(&last, 0)))
    }

    /// The same, for a GRU on the CPU: libtorch takes some hundred operators for each step of a layer and direction.
    fn gru_over_padding(&self, input: &Packed, train: bool) -> Option<(Tensor, Tensor)> {
        let config = &self.config;
        if !input.on_cpu() {
            return None;
        }
        let (mut x, _) =
            Tensor::internal_pad_packed_sequence(&input.data, &input.batch_sizes, true, 0.0, 0);
        let lengths: Vec<i64> = (&input.order.lengths).try_into().ok()?;
        let steps: Vec<usize> = lengths.iter().map(|&length| length as usize).collect();
        let ends = (&input.order.lengths - 1).view([-1, 1, 1]);
        let mut last = Vec::new();
        let directions = if config.bidirectional { 2 } else { 1 };
        for (layer, weights) in self.weights.chunks(4 * directions).enumerate() {
            if layer > 0 {
                x = dropout(&x, config.dropout, train);
            }
            let mut outputs = Vec::new();
            for (direction, weights) in weights.as_chunks().0.iter().enumerate() {
                let backwards = direction == 1;
                let output = gru::one_direction(&x, weights, &steps, backwards);
                last.push(match backwards {
                    true => output.select(1, 0),
                    false => {
                        let ends = ends.expand([-1, 1, config.hidden], false);
                        output.gather(1, &ends, false).squeeze_dim(1)
                    }
                });
                outputs.push(output);
            }
            x = Tensor::cat(&outputs, 2);
        }
        let (data, _) = x.internal_pack_padded_sequence(&input.order.lengths, true);
        Some((data, Tensor::stack(&last, 0)))
    }

    /// Runs an LSTM over all steps of `x`, `[B, T, D]`, padding or not: `[B, T, hidden]`.
    pub(crate) fn forward_padded(&self, x: &Tensor, train: bool) -> Tensor {
        self.run(x, &self.weights, true, train)
    }

    /// Over all steps with these `weights`, of one direction or of both. `x` and the result have samples or steps first.
    fn run(&self, x: &Tensor, weights: &[Tensor], samples_first: bool, train: bool) -> Tensor {
        let samples = x.size()[if samples_first { 0 } else { 1 }];
        let config = &self.config;
        // Four to a layer and direction.
        let count = (weights.len() / 4) as i64;
        let zeros = Tensor::zeros([count, samples, config.hidden], (x.kind(), x.device()));
        let (output, ..) = x.lstm(
            &[&zeros, &zeros],
            &weights.iter().collect::<Vec<_>>(),
            true,
            config.layers,
            config.dropout,
            train,
            count > config.layers,
            samples_first,
        );
        output
    }

    /// Fresh hidden states `[layers * directions, B, hidden]`.
    fn zeros(&self, batch: i64, like: &Tensor) -> Tensor {
        let directions = if self.config.bidirectional { 2 } else { 1 };
        Tensor::zeros(
            [self.config.layers * directions, batch, self.config.hidden],
            (like.kind(), like.device()),
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn network(vs: &nn::VarStore, cell: Cell) -> Rnn {
        Rnn::new(
            &vs.root(),
            RnnConfig {
                cell,
                input: 3,
                hidden: 4,
                layers: 1,
                bidirectional: true,
                dropout: 0.0,
            },
        )
    }

    #[test]
    fn samples_are_independent_of_padding_and_of_each_other() {
        for cell in [Cell::Lstm, Cell::Gru] {
            tch::manual_seed(1);
            let vs = nn::VarStore::new(Device::Cpu);
            let network = network(&vs, cell);
            let x = Tensor::randn([3, 6, 3], (Kind::Float, Device::Cpu));
            let lengths = Tensor::from_slice(&[2i64, 6, 4]).into();
            let (output, hidden) = network.forward(Packed::new(&x, &lengths), false);
            let output = output.unpack_to(7);
            assert_eq!(output.size(), [3, 7, 8]);
            for (sample, length) in [(0, 2), (1, 6), (2, 4)] {
                let alone = x.narrow(0, sample, 1).narrow(1, 0, length);
                let own = Packed::new(&alone, &Tensor::from_slice(&[length]).into());
                let (out, last) = network.forward(own, false);
                let same = |a: &Tensor, b: &Tensor| a.allclose(b, 1e-5, 1e-6, false);
                assert!(same(
                    &out.unpack().squeeze_dim(0),
                    &output.get(sample).narrow(0, 0, length)
                ));
                assert!(same(&last.squeeze_dim(1), &hidden.select(1, sample)));
                let rest = output.get(sample).narrow(0, length, 7 - length);
                assert_eq!(rest.abs().max().double_value(&[]), 0.0, "padding is zero");
            }
        }
    }

    /// Outputs, states and gradients, whether padding is computed or not.
    #[test]
    fn padding_changes_nothing() {
        for (cell, hidden, layers, bidirectional) in [
            (Cell::Lstm, 4, 1, false),
            (Cell::Lstm, 4, 1, true),
            (Cell::Gru, 4, 1, false),
            (Cell::Gru, 20, 1, true),
            (Cell::Gru, 5, 3, true),
        ] {
            tch::manual_seed(2);
            let vs = nn::VarStore::new(Device::Cpu);
            let config = RnnConfig {
                cell,
                input: 3,
                hidden,
                layers,
                bidirectional,
                dropout: 0.0,
            };
            let network = Rnn::new(&vs.root(), config);
            let x = Tensor::randn([5, 7, 3], (Kind::Float, Device::Cpu)).set_requires_grad(true);
            let lengths = Tensor::from_slice(&[2i64, 6, 1, 6, 4]).into();
            let weights: Vec<&Tensor> = network.weights.iter().chain([&x]).collect();
            let computed = |padded: bool| {
                let packed = Packed::new(&x, &lengths);
                let (data, last) = match (padded, cell) {
                    (true, Cell::Lstm) => network.lstm_over_padding(&packed, true).unwrap(),
                    (true, Cell::Gru) => network.gru_over_padding(&packed, true).unwrap(),
                    (false, _) => network.over_packed(&packed, true),
                };
                // Steps, directions and final states count differently.
                let factors = Tensor::arange(data.size()[1], (Kind::Float, Device::Cpu)) + 1.0;
                let loss = (data.square() * factors).sum(Kind::Float) + last.sum(Kind::Float) * 3.0;
                let gradients = Tensor::run_backward(&[loss], &weights, false, false);
                [data, last].into_iter().chain(gradients)
            };
            for (padded, packed) in computed(true).zip(computed(false)) {
                assert_eq!(padded.size(), packed.size());
                let apart = (&padded - &packed).abs().max().double_value(&[]);
                let largest = packed.abs().max().double_value(&[]);
                assert!(
                    apart < 2e-6 * (1.0 + largest),
                    "{config:?}: {apart}, {largest}"
                );
            }
        }
    }

    #[test]
    fn weights_have_pytorch_names() {
        let vs = nn::VarStore::new(Device::Cpu);
        let _network = network(&vs, Cell::Gru);
        let mut names: Vec<String> = vs.variables().into_keys().collect();
        names.sort();
        assert_eq!(names.len(), 8);
        assert!(names.contains(&"weight_ih_l0_reverse".to_owned()));
        assert_eq!(vs.variables()["weight_hh_l0"].size(), [12, 4]);
    }
}
