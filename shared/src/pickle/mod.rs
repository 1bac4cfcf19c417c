//! Reads pickles as data, without ever executing what they name.
//!
//! Python's own unpickler imports and calls whatever a pickle asks for. Here the few constructors
//! that plain data and NumPy's arrays need are recognized by name and done by hand. Every other
//! name stays what it is, a name ([`Value::Class`]), and what it would have made is an opaque
//! object ([`Value::Object`]): the name, the arguments and the state it was given, as plain values.
//! Array contents are borrowed from the input, never copied, but for protocols 0 to 2, where bytes
//! are written as text.
//!
//! Protocols 0 to 5, arrays by NumPy 1 and 2. Nesting, objects, memo, stack and copied bytes are
//! bounded by [`Limits`]; no input makes this panic or use more than a few hundred megabytes beyond
//! itself.
//!
//! ```
//! use halfheard_shared::pickle::{Limits, Pickle, Value};
//!
//! // Two pickles one after the other: {"a": os.system("x")} and 7.
//! let bytes = b"}X\x01\0\0\0acos\nsystem\nX\x01\0\0\0x\x85Rs.K\x07.";
//! let first = Pickle::read(bytes, Limits::default())?;
//! let object = first.get(first.root(), "a").expect("it has the key");
//! assert_eq!(first.class_of(object).as_deref(), Some("os.system"));
//! let args = first.object(object).expect("it is opaque").args;
//! assert_eq!(first.text(first.items(args).expect("a tuple")[0]), Some("x"));
//! let second = Pickle::read_at(bytes, first.end(), Limits::default())?;
//! assert_eq!(second.root(), Value::Int(7));
//! # Ok::<(), halfheard_shared::pickle::PickleError>(())
//! ```

mod array;
mod cursor;
mod document;
mod error;
mod machine;
mod numpy;
mod objects;
mod opcodes;
mod value;
mod view;

pub use array::{Dtype, DtypeKind};
pub use document::Pickle;
pub use error::{PickleError, PickleErrorKind};
pub use value::{Global, Handle, Limits, Object, Value};
pub use view::{ArrayView, NotANumber};

use value::{Class, Container};

#[cfg(test)]
mod tests;
