//! What calls would give: arrays and plain values by hand, everything else opaque.

use super::{
    Dtype, Global, Handle, Object, PickleErrorKind as Kind, Value,
    array::{Array, Data},
    error::{Step, malformed},
    machine::Machine,
};

/// The longest argument list of a name that is done by hand has five.
const MOST_ARGUMENTS: usize = 8;

impl<'a> Machine<'a> {
    /// What calling `callee` with the tuple `args` would give.
    pub(super) fn call(&mut self, callee: Value<'a>, args: Value<'a>) -> Step {
        let callable = matches!(
            callee,
            Value::Global(_) | Value::Class(_) | Value::Object(_) | Value::Persistent(_)
        );
        if !callable {
            return malformed(format!("a call of {}", callee.kind()));
        }
        let items = match (args, self.pickle.items(args)) {
            (Value::Tuple(_), Some(items)) => items,
            _ => return malformed("a call without a tuple of arguments"),
        };
        let by_hand = match callee {
            Value::Global(global) if items.len() <= MOST_ARGUMENTS => {
                let items = items.to_vec();
                self.by_hand(global, &items)?
            }
            _ => None,
        };
        let value = match by_hand {
            Some(value) => value,
            None => self.new_object(callee, args)?,
        };
        self.push(value)
    }

    /// The same with named arguments: no name that is done by hand takes any.
    pub(super) fn call_with_names(
        &mut self,
        callee: Value<'a>,
        args: Value<'a>,
        named: Value<'a>,
    ) -> Step {
        if self
            .pickle
            .entries(named)
            .is_none_or(|mut e| e.next().is_none())
        {
            return self.call(callee, args);
        }
        let mut items = match (args, self.pickle.items(args)) {
            (Value::Tuple(_), Some(items)) => items.to_vec(),
            _ => return malformed("a call without a tuple of arguments"),
        };
        items.push(named);
        let args = Value::Tuple(self.container(items)?);
        let object = self.new_object(callee, args)?;
        self.push(object)
    }

    /// What a name that is done by hand makes of its arguments; `None` if they are others than NumPy
    /// and Python give it for plain data.
    fn by_hand(&mut self, global: Global, args: &[Value<'a>]) -> Step<Option<Value<'a>>> {
        Ok(Some(match (global, args) {
            (Global::Reconstruct, [Value::Global(Global::NdArray), _, _]) => {
                self.new_array(Array::empty())?
            }
            (Global::FromBuffer, args) => {
                let array = self.pickle.array_from_buffer(args);
                let array = self.array_or_why(array)?;
                self.new_array(array)?
            }
            (Global::Dtype, args) => {
                let dtype = self.pickle.dtype_from_args(args);
                let dtype = self.dtype_or_why(dtype)?;
                self.charge(2)?;
                self.pickle.dtypes.push(dtype);
                Value::Dtype(Handle(self.pickle.dtypes.len() as u32 - 1))
            }
            (Global::Scalar, args) => {
                // A text scalar is kept decoded: the same bound as for other decoded bytes.
                let before = self.pickle.owned.len();
                let value = match self.pickle.scalar(args) {
                    Ok(value) => value,
                    Err(Kind::Unsupported(_)) => return Ok(None),
                    Err(error) => return Err(error),
                };
                if self.pickle.owned.len() > before
                    && let Some(text) = self.pickle.owned.pop()
                {
                    Value::OwnedStr(self.own(text)?)
                } else {
                    value
                }
            }
            (Global::Encode | Global::ByteArray, &[text, coding]) => {
                let latin1 = matches!(
                    self.pickle.text(coding),
                    Some("latin1" | "latin-1" | "iso-8859-1")
                );
                match self.pickle.text(text) {
                    Some(text) if latin1 => {
                        match text.chars().map(|c| u8::try_from(u32::from(c))).collect() {
                            Ok(bytes) => Value::OwnedBytes(self.own(bytes)?),
                            Err(_) => return malformed("a character beyond Latin-1 in bytes"),
                        }
                    }
                    _ => return Ok(None),
                }
            }
            (Global::Bytes | Global::ByteArray, []) => Value::Bytes(&[]),
            // Nothing here changes bytes in place, so the same bytes can be shared.
            (
                Global::Bytes | Global::ByteArray,
                &[value @ (Value::Bytes(_) | Value::OwnedBytes(_))],
            ) => value,
            // The factory of missing values is a class or None, and never asked.
            (Global::OrderedDict, []) | (Global::DefaultDict, [] | [_]) => {
                Value::Dict(self.container(Vec::new())?)
            }
            (Global::OrderedDict, &[pairs]) => {
                let mut flat = Vec::new();
                for pair in self.pickle.items(pairs).unwrap_or_default() {
                    match self.pickle.items(*pair) {
                        Some(&[key, value]) => flat.extend([key, value]),
                        _ => return malformed("an OrderedDict of other than pairs"),
                    }
                }
                Value::Dict(self.container(flat)?)
            }
            _ => return Ok(None),
        }))
    }

    /// An array, or the reason for which its elements cannot be read.
    fn array_or_why(&mut self, array: Result<Array<'a>, Kind>) -> Step<Array<'a>> {
        match array {
            Err(Kind::Unsupported(why)) => Ok(Array {
                data: Data::Unreadable(self.own_reason(why)?),
                ..Array::empty()
            }),
            other => other,
        }
    }

    /// A dtype, or the reason for which it is not supported.
    fn dtype_or_why(&mut self, dtype: Result<Dtype, Kind>) -> Step<Result<Dtype, Handle>> {
        match dtype {
            Ok(dtype) => Ok(Ok(dtype)),
            Err(Kind::Unsupported(why)) => Ok(Err(self.own_reason(why)?)),
            Err(error) => Err(error),
        }
    }

    /// Keeps a text that was made here and is not in the input, so it does not count against that;
    /// it is short.
    fn own_reason(&mut self, why: String) -> Step<Handle> {
        self.charge(2 + why.len() / 12)?;
        self.pickle.owned.push(why.into_bytes());
        Ok(Handle(self.pickle.owned.len() as u32 - 1))
    }

    /// An opaque object: what was to be called, and with what.
    fn new_object(&mut self, of: Value<'a>, args: Value<'a>) -> Step<Value<'a>> {
        let depth = self.check_depth(self.depth_of(of).max(self.depth_of(args)) + 1)?;
        self.charge(6)?;
        self.pickle.objects.push(Object {
            of,
            args,
            state: Value::None,
            items: Value::None,
            entries: Value::None,
            depth,
        });
        Ok(Value::Object(Handle(self.pickle.objects.len() as u32 - 1)))
    }

    /// Something kept outside the pickle.
    pub(super) fn persistent(&mut self, id: Value<'a>) -> Step {
        self.check_depth(self.depth_of(id) + 1)?;
        self.charge(2)?;
        self.pickle.persistent.push(id);
        self.push(Value::Persistent(Handle(
            self.pickle.persistent.len() as u32 - 1,
        )))
    }

    /// Gives an object one more part, which `choose` finds the place of.
    fn add_to_object(
        &mut self,
        object: Value<'a>,
        part: Value<'a>,
        choose: for<'o> fn(&'o mut Object<'a>) -> &'o mut Value<'a>,
    ) -> Step {
        let Value::Object(handle) = object else {
            return malformed("an unknown object");
        };
        let deep = self.check_depth(self.depth_of(part) + 1)?;
        let Some(object) = self.pickle.objects.get_mut(handle.0 as usize) else {
            return malformed("an unknown object");
        };
        object.depth = object.depth.max(deep);
        *choose(object) = part;
        Ok(())
    }

    pub(super) fn append_to_object(&mut self, object: Value<'a>, items: Vec<Value<'a>>) -> Step {
        let list = match self.pickle.object(object).map(|o| o.items) {
            Some(list @ Value::List(handle)) => {
                self.extend(handle, items)?;
                list
            }
            _ => Value::List(self.container(items)?),
        };
        self.add_to_object(object, list, |o| &mut o.items)
    }

    pub(super) fn set_in_object(&mut self, object: Value<'a>, items: Vec<Value<'a>>) -> Step {
        let dict = match self.pickle.object(object).map(|o| o.entries) {
            Some(dict @ Value::Dict(handle)) => {
                self.extend(handle, items)?;
                dict
            }
            _ => Value::Dict(self.container(items)?),
        };
        self.add_to_object(object, dict, |o| &mut o.entries)
    }

    /// Gives the value on top of the stack its state.
    pub(super) fn build(&mut self) -> Step {
        let state = self.pop()?;
        match self.top()? {
            Value::Array(handle) => {
                let array = self.pickle.array_from_state(state);
                let array = self.array_or_why(array)?;
                self.charge(array.shape.len())?;
                if let Some(slot) = self.pickle.arrays.get_mut(handle.0 as usize) {
                    *slot = array;
                }
                Ok(())
            }
            Value::Dtype(handle) => {
                let at = handle.0 as usize;
                match self.pickle.dtypes.get(at).copied() {
                    Some(Ok(dtype)) => {
                        let dtype = self.pickle.dtype_with_state(dtype, state);
                        self.pickle.dtypes[at] = self.dtype_or_why(dtype)?;
                        Ok(())
                    }
                    // What is not supported stays so.
                    Some(Err(_)) => Ok(()),
                    None => malformed("an unknown dtype"),
                }
            }
            object @ Value::Object(_) => self.add_to_object(object, state, |o| &mut o.state),
            // Attributes of an OrderedDict, as PyTorch gives them to a model's weights.
            Value::Dict(_) => Ok(()),
            other => malformed(format!("a state for {}", other.kind())),
        }
    }
}
