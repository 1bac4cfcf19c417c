//! LSTMs over sequences of different lengths, as `torch.nn.LSTM` runs them on packed sequences.
//!
//! libtorch packs only sequences that are sorted by falling length; like PyTorch with
//! `enforce_sorted=False`, these functions sort, run and put the samples back in order.

use tch::{Kind, Tensor, nn};

/// What makes an LSTM.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct LstmConfig {
    /// Features a step.
    pub input: i64,
    /// Features of the hidden state, for each direction.
    pub hidden: i64,
    /// Layers.
    pub layers: i64,
    /// Whether a second one reads backwards.
    pub bidirectional: bool,
    /// Dropout between layers.
    pub dropout: f64,
}

/// An LSTM whose weights have PyTorch's names: `weight_ih_l0`, `bias_hh_l0_reverse`.
#[derive(Debug)]
pub struct Lstm {
    config: LstmConfig,
    weights: Vec<Tensor>,
}

/// Sequences of a batch, sorted by falling length and packed.
#[derive(Debug)]
pub struct Packed {
    /// The steps that are no padding, `[steps, features]`.
    data: Tensor,
    /// How many sequences still run at each time step, on the CPU.
    batch_sizes: Tensor,
    order: Order,
}

/// How the sorted samples stand to the batch.
#[derive(Debug)]
pub struct Order {
    /// Lengths by falling size, `[B]` int64 on the CPU.
    lengths: Tensor,
    /// Which sample stands where when sorted, `[B]` int64.
    sorted: Tensor,
    /// And back.
    unsorted: Tensor,
}

impl Order {
    /// Sorts samples by their `lengths`, `[B]` on any device; results live on `like`'s device.
    pub fn new(lengths: &Tensor, like: &Tensor) -> Self {
        let lengths = lengths.to_device(tch::Device::Cpu).to_kind(Kind::Int64);
        let (lengths, sorted) = lengths.sort(0, true);
        let unsorted = sorted.argsort(0, false);
        Self {
            lengths,
            sorted: sorted.to_device(like.device()),
            unsorted: unsorted.to_device(like.device()),
        }
    }
}

impl Packed {
    /// Packs `x`, `[B, T, D]`, by `lengths`, `[B]`, each 1 to T.
    pub fn new(x: &Tensor, lengths: &Tensor) -> Self {
        Self::with_order(x, Order::new(lengths, x))
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

    /// The sequences as a padded batch `[B, longest, D]` in the batch's own order.
    pub fn unpack(&self) -> Tensor {
        let (padded, _) =
            Tensor::internal_pad_packed_sequence(&self.data, &self.batch_sizes, true, 0.0, 0);
        padded.index_select(0, &self.order.unsorted)
    }

    /// Packs another batch of the same lengths, `[B, T, E]`.
    pub fn repack(self, x: &Tensor) -> Self {
        Self::with_order(x, self.order)
    }
}

impl Lstm {
    /// Fresh weights, uniform in ±1/√hidden as PyTorch draws them.
    pub fn new(path: &nn::Path<'_>, config: LstmConfig) -> Self {
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
        for layer in 0..config.layers {
            let input = match layer {
                0 => config.input,
                _ => config.hidden * directions.len() as i64,
            };
            for direction in directions {
                let mut add = |name: &str, dims: &[i64]| {
                    weights.push(path.var(&format!("{name}_l{layer}{direction}"), dims, init));
                };
                add("weight_ih", &[4 * config.hidden, input]);
                add("weight_hh", &[4 * config.hidden, config.hidden]);
                add("bias_ih", &[4 * config.hidden]);
                add("bias_hh", &[4 * config.hidden]);
            }
        }
        Self { config, weights }
    }

    /// Runs over packed sequences. Returns the outputs, packed, with `hidden` features a direction,
    /// and the final hidden states `[layers * directions, B, hidden]` in the batch's order.
    pub fn forward(&self, input: Packed, train: bool) -> (Packed, Tensor) {
        let directions = if self.config.bidirectional { 2 } else { 1 };
        let batch = input.order.sorted.size()[0];
        let zeros = Tensor::zeros(
            [self.config.layers * directions, batch, self.config.hidden],
            (input.data.kind(), input.data.device()),
        );
        let weights: Vec<&Tensor> = self.weights.iter().collect();
        let (data, hidden, _cell) = Tensor::lstm_data(
            &input.data,
            &input.batch_sizes,
            &[&zeros, &zeros],
            &weights,
            true,
            self.config.layers,
            self.config.dropout,
            train,
            self.config.bidirectional,
        );
        let hidden = hidden.index_select(1, &input.order.unsorted);
        (Packed { data, ..input }, hidden)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tch::Device;

    fn lstm(vs: &nn::VarStore) -> Lstm {
        Lstm::new(
            &vs.root(),
            LstmConfig {
                input: 3,
                hidden: 4,
                layers: 1,
                bidirectional: true,
                dropout: 0.0,
            },
        )
    }

    #[test]
    fn a_sample_does_not_see_its_padding_or_its_neighbours() {
        tch::manual_seed(1);
        let vs = nn::VarStore::new(Device::Cpu);
        let lstm = lstm(&vs);
        let x = Tensor::randn([3, 6, 3], (Kind::Float, Device::Cpu));
        let lengths = Tensor::from_slice(&[2i64, 6, 4]);
        let (output, hidden) = lstm.forward(Packed::new(&x, &lengths), false);
        let output = output.unpack();
        assert_eq!(output.size(), [3, 6, 8]);
        for (sample, length) in [(0, 2), (1, 6), (2, 4)] {
            let alone = x.narrow(0, sample, 1).narrow(1, 0, length);
            let (out, last) =
                lstm.forward(Packed::new(&alone, &Tensor::from_slice(&[length])), false);
            let same = |a: &Tensor, b: &Tensor| a.allclose(b, 1e-5, 1e-6, false);
            assert!(same(
                &out.unpack().squeeze_dim(0),
                &output.get(sample).narrow(0, 0, length)
            ));
            assert!(same(&last.squeeze_dim(1), &hidden.select(1, sample)));
            if length < 6 {
                let rest = output.get(sample).narrow(0, length, 6 - length);
                assert_eq!(rest.abs().max().double_value(&[]), 0.0, "padding is zero");
            }
        }
    }

    #[test]
    fn weights_have_pytorchs_names() {
        let vs = nn::VarStore::new(Device::Cpu);
        let _lstm = lstm(&vs);
        let mut names: Vec<String> = vs.variables().into_keys().collect();
        names.sort();
        assert_eq!(names.len(), 8);
        assert!(names.contains(&"weight_ih_l0_reverse".to_owned()));
    }
}
