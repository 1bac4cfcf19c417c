//! Attention with narrow heads on the CPU, by [`halfheard_kernels`].

use super::dropout::seed;
use crate::numerics::threads;
use halfheard_kernels::attention::{
    Attention, Forward, Gradients, Inputs, Rows, RowsMut, WIDEST_HEAD,
};
use halfheard_torch_shim::with_gradient;
use tch::{Device, Kind, Tensor};

/// What attends to what, and how.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Heads {
    /// The number of heads.
    pub count: i64,
    /// How many steps ahead of itself a target sees.
    pub ahead: i64,
    /// The probability with which a weight is dropped, below 1.
    pub dropout: f64,
}

/// Queries, keys and values, side by side or each in a tensor of its own.
#[derive(Debug)]
pub(crate) enum Projected {
    /// `[T, B, 3 D]`.
    Together(Tensor),
    /// Queries `[T, B, D]`, keys and values `[S, B, 2 D]`.
    Paired([Tensor; 2]),
    /// `[T, B, D]` and twice `[S, B, D]`.
    Apart([Tensor; 3]),
}

impl Projected {
    /// Queries, keys and values, `[steps, B, D]` each, with features next to each other.
    pub(crate) fn parts(&self) -> [Tensor; 3] {
        let parts = match self {
            Self::Together(all) => {
                let width = all.size()[2] / 3;
                [0, 1, 2].map(|part| all.narrow(2, part * width, width))
            }
            Self::Paired([query, both]) => {
                let width = both.size()[2] / 2;
                let [key, value] = [0, 1].map(|part| both.narrow(2, part * width, width));
                [query.shallow_clone(), key, value]
            }
            Self::Apart(parts) => parts.each_ref().map(Tensor::shallow_clone),
        };
        parts.map(|part| match part.stride()[2] {
            1 => part,
            _ => part.contiguous(),
        })
    }

    /// In float32, which the kernel computes in.
    fn float32(self) -> Self {
        match self {
            Self::Together(all) => Self::Together(all.to_kind(Kind::Float)),
            Self::Paired(parts) => Self::Paired(parts.map(|part| part.to_kind(Kind::Float))),
            Self::Apart(parts) => Self::Apart(parts.map(|part| part.to_kind(Kind::Float))),
        }
    }

    fn detach(&self) -> Self {
        match self {
            Self::Together(all) => Self::Together(all.detach()),
            Self::Paired(parts) => Self::Paired(parts.each_ref().map(Tensor::detach)),
            Self::Apart(parts) => Self::Apart(parts.each_ref().map(Tensor::detach)),
        }
    }

    /// The tensors that it consists of.
    fn tensors(&self) -> Vec<&Tensor> {
        match self {
            Self::Together(all) => vec![all],
            Self::Paired(parts) => parts.iter().collect(),
            Self::Apart(parts) => parts.iter().collect(),
        }
    }

    fn like(&self) -> Self {
        let empty = |x: &Tensor| Tensor::empty(x.size(), (x.kind(), x.device()));
        match self {
            Self::Together(all) => Self::Together(empty(all)),
            Self::Paired(parts) => Self::Paired(parts.each_ref().map(empty)),
            Self::Apart(parts) => Self::Apart(parts.each_ref().map(empty)),
        }
    }
}

/// Softmax attention, `[T, B, D]`; `Err` with what is projected elsewhere than on the CPU, of other kinds, and of wide
/// heads. Dropout takes one number from libtorch's generator.
pub(crate) fn attend(projected: Projected, heads: Heads) -> Result<Tensor, Projected> {
    let here = |x: &&Tensor| {
        let known = matches!(x.kind(), Kind::Float | Kind::BFloat16);
        x.device() == Device::Cpu && known && x.numel() > 0
    };
    if !projected.tensors().iter().all(here) {
        return Err(projected);
    }
    let width = projected.parts()[0].size()[2];
    let head = (width / heads.count) as usize;
    if head > WIDEST_HEAD {
        return Err(projected);
    }
    let projected = projected.float32();
    let tensors = projected.tensors();
    let held = projected.detach();
    let [query, key, value] = held.parts();
    let (size, sources) = (query.size(), key.size()[0]);
    let seed = match heads.dropout > 0.0 {
        true => seed(),
        false => 0,
    };
    let attention = Attention {
        targets: size[0] as usize,
        sources: sources as usize,
        samples: size[1] as usize,
        heads: heads.count as usize,
        head,
        ahead: heads.ahead as usize,
        dropout: heads.dropout,
        seed,
        threads: threads(),
    };
    let output = Tensor::empty(&size[..], (Kind::Float, Device::Cpu));
    let mut statistics = vec![0.0; attention.statistics()];
    attention.forward(
        inputs(&[&query, &key, &value]),
        rows_mut(&output),
        &mut statistics,
    );
    let result = output.detach();
    let attended = with_gradient(result, &tensors, move |gradient| {
        let gradients = held.like();
        let [of_query, of_key, of_value] = gradients.parts();
        attention.backward(
            inputs(&held.parts().each_ref()),
            Forward {
                output: rows(&output),
                statistics: &statistics,
            },
            rows(&gradient.contiguous()),
            Gradients {
                query: rows_mut(&of_query),
                key: rows_mut(&of_key),
                value: rows_mut(&of_value),
            },
        );
        match gradients {
            Projected::Together(all) => vec![all],
            Projected::Paired(parts) => parts.into(),
            Projected::Apart(parts) => parts.into(),
        }
    });
    Ok(attended)
}

fn inputs<'a>([query, key, value]: &[&'a Tensor; 3]) -> Inputs<'a> {
    Inputs {
        query: rows(query),
        key: rows(key),
        value: rows(value),
    }
}

/// The strides of steps and samples of `x`, `[steps, B, D]`, and how many numbers it spans.
fn layout(x: &Tensor) -> [usize; 3] {
    let (size, stride) = (x.size(), x.stride());
    assert_eq!(
        (x.kind(), x.device(), stride[2]),
        (Kind::Float, Device::Cpu, 1)
    );
    let [step, sample] = [0, 1].map(|i| stride[i] as usize);
    let last = [0, 1].map(|i| (size[i] - 1) as usize);
    [
        step,
        sample,
        last[0] * step + last[1] * sample + size[2] as usize,
    ]
}

/// The numbers of `x`, which nobody may write to meanwhile.
fn rows(x: &Tensor) -> Rows<'_> {
    let [step, sample, length] = layout(x);
    // SAFETY: the tensor is on the CPU, of this kind, and spans as many numbers from its first one on; nothing writes
    // to it, since all of its users are in this thread, which is here.
    let data = unsafe { std::slice::from_raw_parts(x.data_ptr().cast(), length) };
    Rows { data, step, sample }
}

/// The numbers of `x`, which the caller has just made and nobody uses meanwhile.
fn rows_mut(x: &Tensor) -> RowsMut<'_> {
    let [step, sample, length] = layout(x);
    // SAFETY: as above; parts of a tensor have different vectors.
    unsafe { RowsMut::from_raw(x.data_ptr().cast(), length, step, sample) }
}
