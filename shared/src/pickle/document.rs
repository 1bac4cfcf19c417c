//! A pickle that was read, and how to walk its values.

use super::{
    ArrayView, Dtype, Global, Handle, Object, Value, array, error,
    value::{Class, Container},
};
use std::borrow::Cow;

/// A pickle that has been read.
#[derive(Debug)]
pub struct Pickle<'a> {
    pub(super) root: Value<'a>,
    pub(super) containers: Vec<Container<'a>>,
    pub(super) arrays: Vec<array::Array<'a>>,
    /// Those that are not supported by their names, in `owned`.
    pub(super) dtypes: Vec<Result<Dtype, Handle>>,
    pub(super) classes: Vec<Class<'a>>,
    pub(super) objects: Vec<Object<'a>>,
    /// The ids of what is kept outside.
    pub(super) persistent: Vec<Value<'a>>,
    pub(super) owned: Vec<Vec<u8>>,
    pub(super) end: usize,
}

impl<'a> Pickle<'a> {
    /// Where the pickle ends: the offset of the first byte behind its end mark.
    pub fn end(&self) -> usize {
        self.end
    }

    /// The value that was pickled.
    pub fn root(&self) -> Value<'a> {
        self.root
    }

    /// The text of a text value, or of bytes that are UTF-8 (Python 2 wrote texts so).
    pub fn text(&self, value: Value<'a>) -> Option<&str> {
        match value {
            Value::Str(text) => Some(text),
            Value::OwnedStr(_) | Value::Bytes(_) | Value::OwnedBytes(_) => {
                std::str::from_utf8(self.raw(value)?).ok()
            }
            _ => None,
        }
    }

    /// The bytes of bytes or of a text.
    pub fn raw(&self, value: Value<'a>) -> Option<&[u8]> {
        match value {
            Value::Str(text) => Some(text.as_bytes()),
            Value::Bytes(bytes) | Value::BrokenStr(bytes) => Some(bytes),
            Value::OwnedStr(handle) | Value::OwnedBytes(handle) => {
                self.owned.get(handle.0 as usize).map(Vec::as_slice)
            }
            _ => None,
        }
    }

    /// The items of a list, set or tuple.
    pub fn items(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        match value {
            Value::Tuple(handle) | Value::List(handle) => self
                .containers
                .get(handle.0 as usize)
                .map(|c| c.items.as_slice()),
            _ => None,
        }
    }

    /// The keys and values of a dict, or of an object of a class derived from it, in order.
    pub fn entries(
        &self,
        value: Value<'a>,
    ) -> Option<impl DoubleEndedIterator<Item = (Value<'a>, Value<'a>)>> {
        let dict = match value {
            // A class derived from dict, with what was set in it.
            Value::Object(_) => self.object(value)?.entries,
            value => value,
        };
        match dict {
            Value::Dict(handle) => self
                .containers
                .get(handle.0 as usize)
                .map(|c| c.items.chunks_exact(2).map(|pair| (pair[0], pair[1]))),
            _ => None,
        }
    }

    /// A dict's value under a text key; the last one where a key was set twice, as in Python.
    pub fn get(&self, dict: Value<'a>, key: &str) -> Option<Value<'a>> {
        self.entries(dict)?
            .rev()
            .find(|(k, _)| self.text(*k) == Some(key))
            .map(|(_, value)| value)
    }

    /// What is known of an opaque object.
    pub fn object(&self, value: Value<'a>) -> Option<&Object<'a>> {
        match value {
            Value::Object(handle) => self.objects.get(handle.0 as usize),
            _ => None,
        }
    }

    /// The id under which something is kept outside the pickle.
    pub fn persistent_id(&self, value: Value<'a>) -> Option<Value<'a>> {
        match value {
            Value::Persistent(handle) => self.persistent.get(handle.0 as usize).copied(),
            _ => None,
        }
    }

    /// Module and name of a [`Value::Class`], as they stand in the pickle.
    pub fn class(&self, value: Value<'a>) -> Option<(&str, &str)> {
        let Value::Class(handle) = value else {
            return None;
        };
        let class = self.classes.get(handle.0 as usize)?;
        Some((self.text(class.module)?, self.text(class.name)?))
    }

    /// The class of an opaque object, or the name that a value is, for messages: `pathlib.PosixPath`.
    /// Python hides some behind a helper that gets the class as its first argument; then it is that
    /// argument's.
    pub fn class_of(&self, value: Value<'a>) -> Option<String> {
        // Objects may be made by objects; nobody needs to follow that far.
        let mut value = value;
        for _ in 0..8 {
            match value {
                Value::Global(global) => return Some(global.name().to_owned()),
                Value::Class(_) => {
                    let (module, name) = self.class(value)?;
                    return Some(format!("{}.{}", error::shown(module), error::shown(name)));
                }
                Value::Object(_) => {
                    let object = self.object(value)?;
                    let helper = match object.of {
                        Value::Class(_) => {
                            let (_, name) = self.class(object.of)?;
                            name.starts_with('_') || name == "getattr"
                        }
                        Value::Global(global) => global == Global::Reconstruct,
                        _ => false,
                    };
                    let first = self
                        .items(object.args)
                        .and_then(|args| args.first().copied());
                    value = match first {
                        Some(class @ Value::Class(_)) if helper => class,
                        _ => object.of,
                    };
                }
                _ => return None,
            }
        }
        None
    }

    /// What a value is, for messages: as [`Value::kind`], with the class of an opaque one and the
    /// type of an array whose elements cannot be read.
    pub fn describe(&self, value: Value<'a>) -> String {
        match value {
            Value::Object(_) => match self.class_of(value) {
                Some(class) => format!("an object of `{class}`"),
                None => value.kind().to_owned(),
            },
            Value::Class(_) | Value::Global(_) => match self.class_of(value) {
                Some(class) => format!("the class or function `{class}`"),
                None => value.kind().to_owned(),
            },
            Value::Array(handle) => match self.arrays.get(handle.0 as usize).map(|a| a.data) {
                Some(array::Data::Objects(_)) => "an array of objects".to_owned(),
                Some(array::Data::Unreadable(why)) => {
                    let why = self.text(Value::OwnedStr(why)).unwrap_or_default();
                    format!("an array that cannot be read ({why})")
                }
                _ => value.kind().to_owned(),
            },
            _ => value.kind().to_owned(),
        }
    }

    /// An array of numbers or of texts of fixed width.
    pub fn array(&self, value: Value<'a>) -> Option<ArrayView<'_>> {
        let Value::Array(handle) = value else {
            return None;
        };
        let array = self.arrays.get(handle.0 as usize)?;
        let data = match array.data {
            array::Data::Raw(bytes) => self.raw(bytes)?,
            array::Data::Objects(_) | array::Data::Unreadable(_) => return None,
        };
        Some(ArrayView::new(array, data))
    }

    /// The items of a one-dimensional object array.
    pub fn objects(&self, value: Value<'a>) -> Option<&[Value<'a>]> {
        self.object_array(value)
            .filter(|(shape, _)| shape.len() == 1)
            .map(|(_, items)| items)
    }

    /// The shape and the items, in C order, of an object array.
    pub fn object_array(&self, value: Value<'a>) -> Option<(&[usize], &[Value<'a>])> {
        let Value::Array(handle) = value else {
            return None;
        };
        let array = self.arrays.get(handle.0 as usize)?;
        match array.data {
            // NumPy writes the items of an object array in C order, whatever the order in memory.
            array::Data::Objects(list) => Some((&array.shape, self.items(list)?)),
            _ => None,
        }
    }

    /// Whether a value is something that is not done by hand: an object, its class, something kept
    /// outside the pickle, or an array of a type that is not supported.
    pub fn is_opaque(&self, value: Value<'a>) -> bool {
        match value {
            Value::Object(_) | Value::Class(_) | Value::Global(_) | Value::Persistent(_) => true,
            Value::Array(handle) => self
                .arrays
                .get(handle.0 as usize)
                .is_some_and(|array| matches!(array.data, array::Data::Unreadable(_))),
            _ => false,
        }
    }

    /// One text out of an array of fixed-width texts; see [`ArrayView::text`].
    pub fn array_text(&self, value: Value<'a>, index: usize) -> Option<String> {
        self.array(value)?.text(index).map(Cow::into_owned)
    }
}
