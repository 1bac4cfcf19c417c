//! Builds NumPy's arrays and dtypes from their pickled state.

use super::{
    Container, Handle, Pickle, PickleErrorKind as Kind, Value,
    array::{Array, Data, Dtype, DtypeKind},
    view::{ArrayView, float_at},
};

/// The most dimensions; NumPy 1 has the same.
const MAX_RANK: usize = 32;
/// No feature array has more elements; keeps products of sizes far from overflow.
const MAX_ELEMENTS: usize = 1 << 46;

fn malformed<T>(what: impl Into<String>) -> Result<T, Kind> {
    Err(Kind::Malformed(what.into()))
}

impl<'a> Pickle<'a> {
    fn shape_of(&self, value: Value<'a>) -> Result<Vec<usize>, Kind> {
        let single = [value];
        let items = match value {
            // `_frombuffer` may give a single number.
            Value::Int(_) => &single[..],
            _ => match self.items(value) {
                Some(items) => items,
                None => return malformed("an array's shape is not a tuple"),
            },
        };
        if items.len() > MAX_RANK {
            return malformed(format!("an array of {} dimensions", items.len()));
        }
        let mut elements = 1usize;
        let mut shape = Vec::with_capacity(items.len());
        for item in items {
            let Value::Int(size) = item else {
                return malformed("an array's size is not an integer");
            };
            let Ok(size) = usize::try_from(*size) else {
                return malformed(format!("an array of size {size}"));
            };
            elements = match elements.checked_mul(size.max(1)) {
                Some(elements) if elements <= MAX_ELEMENTS => elements,
                _ => {
                    return Err(Kind::Limit {
                        what: "elements in one array",
                        limit: MAX_ELEMENTS as u64,
                    });
                }
            };
            shape.push(size);
        }
        Ok(shape)
    }

    fn dtype_of(&self, value: Value<'a>) -> Result<Dtype, Kind> {
        match value {
            Value::Dtype(handle) => match self.dtypes.get(handle.0 as usize) {
                Some(Ok(dtype)) => Ok(*dtype),
                Some(Err(why)) => Err(Kind::Unsupported(
                    self.text(Value::OwnedStr(*why))
                        .unwrap_or_default()
                        .to_owned(),
                )),
                None => malformed("an unknown dtype"),
            },
            _ => malformed(format!("{} where a dtype is due", value.kind())),
        }
    }

    fn checked(
        &self,
        shape: Vec<usize>,
        dtype: Dtype,
        fortran: bool,
        data: Value<'a>,
    ) -> Result<Array<'a>, Kind> {
        let elements: usize = shape.iter().product();
        if dtype.kind == DtypeKind::Object {
            return match (data, self.items(data)) {
                (Value::List(_), Some(items)) if items.len() == elements => Ok(Array {
                    dtype,
                    shape,
                    fortran,
                    data: Data::Objects(data),
                }),
                _ => malformed(format!(
                    "an object array of shape {shape:?} whose items do not fit"
                )),
            };
        }
        if dtype.size == 0 {
            return Err(Kind::Unsupported(
                "arrays of elements without width".to_owned(),
            ));
        }
        let Some(bytes) = self
            .raw(data)
            .filter(|_| !matches!(data, Value::Str(_) | Value::OwnedStr(_)))
        else {
            return malformed(format!("{} where an array's bytes are due", data.kind()));
        };
        // MAX_ELEMENTS times any size that `Dtype::parse` lets through fits 128 bits.
        if bytes.len() as u128 != elements as u128 * dtype.size as u128 {
            return malformed(format!(
                "an array of shape {shape:?} and type {} with {} bytes",
                dtype.name(),
                bytes.len()
            ));
        }
        Ok(Array {
            dtype,
            shape,
            fortran,
            data: Data::Raw(data),
        })
    }

    /// The array from the state that NumPy pickles: (version,) shape, dtype, is_fortran, data.
    pub(super) fn array_from_state(&self, state: Value<'a>) -> Result<Array<'a>, Kind> {
        let items = match (state, self.items(state)) {
            (Value::Tuple(_), Some(items)) => items,
            _ => return malformed("an array's state is not a tuple"),
        };
        let (shape, dtype, fortran, data) = match *items {
            [Value::Int(0 | 1), shape, dtype, fortran, data] | [shape, dtype, fortran, data] => {
                (shape, dtype, fortran, data)
            }
            _ => return malformed("an array's state of an unknown version"),
        };
        let fortran = match fortran {
            Value::Bool(fortran) => fortran,
            Value::Int(n) => n != 0,
            _ => return malformed("an array's order is not a bool"),
        };
        self.checked(self.shape_of(shape)?, self.dtype_of(dtype)?, fortran, data)
    }

    /// The array from the arguments of `_frombuffer`: buffer, dtype, shape, order (, axis order).
    pub(super) fn array_from_buffer(&self, args: &[Value<'a>]) -> Result<Array<'a>, Kind> {
        let (buffer, dtype, shape, order) = match *args {
            [buffer, dtype, shape, order] | [buffer, dtype, shape, order, Value::None] => {
                (buffer, dtype, shape, order)
            }
            [_, _, _, _, _] => {
                return Err(Kind::Unsupported(
                    "an array with permuted axes: make it contiguous (numpy.ascontiguousarray) and write it again".to_owned(),
                ));
            }
            _ => return malformed("`_frombuffer` with other arguments than NumPy gives"),
        };
        let fortran = match self.text(order) {
            Some("C") => false,
            Some("F") => true,
            _ => return malformed("`_frombuffer` with an order other than C and F"),
        };
        self.checked(
            self.shape_of(shape)?,
            self.dtype_of(dtype)?,
            fortran,
            buffer,
        )
    }

    /// The dtype from the arguments of `numpy.dtype`: code, align, copy.
    pub(super) fn dtype_from_args(&self, args: &[Value<'a>]) -> Result<Dtype, Kind> {
        match args {
            [code] | [code, _, _] => match self.text(*code) {
                Some(code) => Dtype::parse(code),
                None => Err(Kind::Unsupported(format!(
                    "a dtype given as {}",
                    code.kind()
                ))),
            },
            _ => malformed("`numpy.dtype` with other arguments than NumPy gives"),
        }
    }

    /// A dtype with its pickled state: version, byte order, subdtype, names, fields, size,
    /// alignment, flags (, metadata).
    pub(super) fn dtype_with_state(&self, dtype: Dtype, state: Value<'a>) -> Result<Dtype, Kind> {
        let items = match (state, self.items(state)) {
            (Value::Tuple(_), Some(items)) => items,
            _ => return malformed("a dtype's state is not a tuple"),
        };
        let [
            Value::Int(3 | 4),
            order,
            subdtype,
            names,
            fields,
            Value::Int(size),
            _alignment,
            ..,
        ] = *items
        else {
            return malformed("a dtype's state of an unknown version");
        };
        if [subdtype, names, fields]
            .iter()
            .any(|value| *value != Value::None)
        {
            return Err(Kind::Unsupported("arrays of records".to_owned()));
        }
        let big_endian = match self.text(order) {
            Some(">") => true,
            Some("<" | "|" | "=") => false,
            _ => return malformed("a dtype with an unknown byte order"),
        };
        // The size stands in the code already, -1 here; fixed-width texts repeat it.
        if size != -1 && usize::try_from(size) != Ok(dtype.size) {
            return malformed(format!("a dtype {} with {size} bytes", dtype.name()));
        }
        Ok(Dtype {
            big_endian,
            ..dtype
        })
    }

    /// One number or text from the arguments of `scalar`: dtype, bytes.
    pub(super) fn scalar(&mut self, args: &[Value<'a>]) -> Result<Value<'a>, Kind> {
        let [dtype, data] = *args else {
            return malformed("`scalar` with other arguments than NumPy gives");
        };
        let array = self.checked(vec![1], self.dtype_of(dtype)?, false, data)?;
        let Data::Raw(data) = array.data else {
            return Err(Kind::Unsupported("an object scalar".to_owned()));
        };
        let Some(bytes) = self.raw(data) else {
            return malformed("a scalar without bytes");
        };
        let view = ArrayView::new(&array, bytes);
        match view.dtype().kind {
            DtypeKind::Bool => Ok(Value::Bool(bytes[0] != 0)),
            DtypeKind::Int | DtypeKind::UInt => {
                let mut out = Vec::new();
                match view.read_i64(0, &mut out, &mut Vec::new()) {
                    Ok(()) => Ok(Value::Int(out[0])),
                    Err(_) => malformed("an integer over 64 bits"),
                }
            }
            DtypeKind::Float => Ok(Value::Float(float_at(bytes, view.dtype()))),
            DtypeKind::Bytes | DtypeKind::Text => match view.text(0) {
                Some(text) => {
                    let text = text.into_owned().into_bytes();
                    self.owned.push(text);
                    Ok(Value::OwnedStr(Handle(self.owned.len() as u32 - 1)))
                }
                None => malformed("a scalar that is not text"),
            },
            DtypeKind::Object => Err(Kind::Unsupported("an object scalar".to_owned())),
        }
    }

    pub(super) fn container(&self, handle: Handle) -> Option<&Container<'a>> {
        self.containers.get(handle.0 as usize)
    }
}
