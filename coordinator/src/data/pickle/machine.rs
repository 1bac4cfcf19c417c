//! The stack machine that a pickle is a program for, without its power to call anything.

use super::{
    Container, Global, Handle, Limits, Pickle, PickleError, PickleErrorKind as Kind, Value,
    cursor::{Cursor, raw_unicode_escape},
    error::shown,
    numpy::Array,
};
use std::collections::HashMap;

/// The newest protocol there is.
const NEWEST: u8 = 5;

pub(super) struct Machine<'a> {
    input: Cursor<'a>,
    /// Where the current opcode began.
    op: usize,
    limits: Limits,
    stack: Vec<Value<'a>>,
    /// Heights of the stack at open marks.
    marks: Vec<usize>,
    memo: HashMap<u32, Value<'a>>,
    objects: usize,
    owned_bytes: usize,
    pickle: Pickle<'a>,
}

pub(super) type Step<T = ()> = Result<T, Kind>;

pub(super) fn malformed<T>(what: impl Into<String>) -> Step<T> {
    Err(Kind::Malformed(what.into()))
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8], limits: Limits) -> Self {
        Self {
            input: Cursor { bytes, at: 0 },
            op: 0,
            limits,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: HashMap::new(),
            objects: 0,
            owned_bytes: 0,
            pickle: Pickle {
                root: Value::None,
                containers: Vec::new(),
                arrays: Vec::new(),
                dtypes: Vec::new(),
                owned: Vec::new(),
            },
        }
    }

    pub(super) fn run(mut self) -> Result<Pickle<'a>, PickleError> {
        loop {
            self.op = self.input.at;
            match self.step() {
                Ok(false) => {}
                Ok(true) => return Ok(self.pickle),
                Err(kind) => {
                    return Err(PickleError {
                        offset: self.op,
                        kind,
                    });
                }
            }
        }
    }

    // Bounds.

    fn charge(&mut self, count: usize) -> Step {
        self.objects += count;
        if self.objects > self.limits.objects {
            return Err(Kind::Limit {
                what: "objects",
                limit: self.limits.objects as u64,
            });
        }
        Ok(())
    }

    /// Keeps decoded bytes. All of them together fit into the input's size: a pickle that asks for
    /// more repeats one text again and again.
    fn own(&mut self, bytes: Vec<u8>) -> Step<Handle> {
        self.charge(2)?;
        self.owned_bytes += bytes.len();
        if self.owned_bytes > self.input.bytes.len() {
            return Err(Kind::Limit {
                what: "decoded bytes",
                limit: self.input.bytes.len() as u64,
            });
        }
        self.pickle.owned.push(bytes);
        Ok(Handle(self.pickle.owned.len() as u32 - 1))
    }

    // The stack.

    fn push(&mut self, value: Value<'a>) -> Step {
        if self.stack.len() >= self.limits.stack {
            return Err(Kind::Limit {
                what: "values on the stack",
                limit: self.limits.stack as u64,
            });
        }
        self.stack.push(value);
        Ok(())
    }

    fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    fn pop(&mut self) -> Step<Value<'a>> {
        if self.stack.len() > self.floor()
            && let Some(value) = self.stack.pop()
        {
            return Ok(value);
        }
        malformed("nothing on the stack")
    }

    fn top(&self) -> Step<Value<'a>> {
        match self.stack.last() {
            Some(value) if self.stack.len() > self.floor() => Ok(*value),
            _ => malformed("nothing on the stack"),
        }
    }

    fn pop_mark(&mut self) -> Step<Vec<Value<'a>>> {
        match self.marks.pop() {
            Some(height) if height <= self.stack.len() => Ok(self.stack.split_off(height)),
            _ => malformed("no open mark"),
        }
    }

    // Values.

    fn depth_of(&self, value: Value<'a>) -> usize {
        match value {
            Value::Tuple(handle) | Value::List(handle) | Value::Dict(handle) => {
                self.pickle.container(handle).map_or(0, |c| c.depth)
            }
            _ => 0,
        }
    }

    fn container(&mut self, items: Vec<Value<'a>>) -> Step<Handle> {
        self.charge(1)?;
        self.pickle.containers.push(Container::default());
        let handle = Handle(self.pickle.containers.len() as u32 - 1);
        self.extend(handle, items)?;
        Ok(handle)
    }

    fn extend(&mut self, handle: Handle, items: Vec<Value<'a>>) -> Step {
        self.charge(items.len())?;
        let deepest = items
            .iter()
            .map(|item| self.depth_of(*item) + 1)
            .max()
            .unwrap_or(0);
        if deepest > self.limits.depth {
            return Err(Kind::Limit {
                what: "levels of nesting",
                limit: self.limits.depth as u64,
            });
        }
        match self.pickle.containers.get_mut(handle.0 as usize) {
            Some(container) => {
                container.depth = container.depth.max(deepest);
                if container.items.is_empty() {
                    container.items = items;
                } else {
                    container.items.extend(items);
                }
                Ok(())
            }
            None => malformed("an unknown container"),
        }
    }

    fn append(&mut self, items: Vec<Value<'a>>) -> Step {
        match self.top()? {
            Value::List(handle) => self.extend(handle, items),
            other => malformed(format!("items for {}", other.kind())),
        }
    }

    fn set_items(&mut self, items: Vec<Value<'a>>) -> Step {
        if !items.len().is_multiple_of(2) {
            return malformed("a key without a value");
        }
        match self.top()? {
            Value::Dict(handle) => self.extend(handle, items),
            other => malformed(format!("keys for {}", other.kind())),
        }
    }

    fn tuple(&mut self, items: Vec<Value<'a>>) -> Step {
        let handle = self.container(items)?;
        self.push(Value::Tuple(handle))
    }

    fn remember(&mut self, index: u32) -> Step {
        let value = self.top()?;
        self.charge(1)?;
        self.memo.insert(index, value);
        Ok(())
    }

    fn recall(&mut self, index: u32) -> Step {
        match self.memo.get(&index) {
            Some(value) => self.push(*value),
            None => malformed(format!("memo entry {index}, which was never written")),
        }
    }

    fn global(&mut self, module: &str, name: &str) -> Step {
        match Global::find(module, name) {
            Some(global) => self.push(Value::Global(global)),
            None => Err(Kind::Global(format!("{}.{}", shown(module), shown(name)))),
        }
    }

    fn new_array(&mut self, array: Array<'a>) -> Step<Value<'a>> {
        // About four containers' worth of memory.
        self.charge(4 + array.shape.len())?;
        self.pickle.arrays.push(array);
        Ok(Value::Array(Handle(self.pickle.arrays.len() as u32 - 1)))
    }

    /// What the call of an allowed name would give.
    fn reduce(&mut self) -> Step {
        let args = self.pop()?;
        let callee = self.pop()?;
        let Value::Global(global) = callee else {
            return malformed(format!("a call of {}", callee.kind()));
        };
        let args = match (args, self.pickle.items(args)) {
            // The longest argument list of an allowed name has five.
            (Value::Tuple(_), Some(items)) if items.len() <= 8 => items.to_vec(),
            _ => return malformed("a call without a tuple of arguments"),
        };
        let value = match (global, args.as_slice()) {
            (Global::Reconstruct, [Value::Global(Global::NdArray), _, _]) => {
                self.new_array(Array::empty())?
            }
            (Global::FromBuffer, args) => {
                let array = self.pickle.array_from_buffer(args)?;
                self.new_array(array)?
            }
            (Global::Dtype, args) => {
                let dtype = self.pickle.dtype_from_args(args)?;
                self.charge(1)?;
                self.pickle.dtypes.push(dtype);
                Value::Dtype(Handle(self.pickle.dtypes.len() as u32 - 1))
            }
            (Global::Scalar, args) => {
                // A text scalar is kept decoded: the same bound as for other decoded bytes.
                let before = self.pickle.owned.len();
                let value = self.pickle.scalar(args)?;
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
                    _ => return malformed("bytes in another coding than Latin-1"),
                }
            }
            (Global::Bytes | Global::ByteArray, []) => Value::Bytes(&[]),
            // Nothing here changes bytes in place, so the same bytes can be shared.
            (
                Global::Bytes | Global::ByteArray,
                &[value @ (Value::Bytes(_) | Value::OwnedBytes(_))],
            ) => value,
            (Global::OrderedDict, []) => Value::Dict(self.container(Vec::new())?),
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
            (global, args) => {
                return malformed(format!(
                    "a call of {global:?} with {} arguments that NumPy and Python never give",
                    args.len()
                ));
            }
        };
        self.push(value)
    }

    fn build(&mut self) -> Step {
        let state = self.pop()?;
        match self.top()? {
            Value::Array(handle) => {
                let array = self.pickle.array_from_state(state)?;
                self.charge(array.shape.len())?;
                if let Some(slot) = self.pickle.arrays.get_mut(handle.0 as usize) {
                    *slot = array;
                }
                Ok(())
            }
            Value::Dtype(handle) => {
                let Some(dtype) = self.pickle.dtypes.get(handle.0 as usize).copied() else {
                    return malformed("an unknown dtype");
                };
                let dtype = self.pickle.dtype_with_state(dtype, state)?;
                self.pickle.dtypes[handle.0 as usize] = dtype;
                Ok(())
            }
            other => malformed(format!("a state for {}", other.kind())),
        }
    }

    /// A little-endian two's complement integer of any length.
    fn long(bytes: &[u8]) -> Step<Value<'a>> {
        let Some(&last) = bytes.last() else {
            return Ok(Value::Int(0));
        };
        let fill = if last & 0x80 == 0 { 0 } else { 0xff };
        let (low, high) = bytes.split_at(bytes.len().min(8));
        let mut eight = [fill; 8];
        eight[..low.len()].copy_from_slice(low);
        let number = i64::from_le_bytes(eight);
        if high.iter().any(|&b| b != fill) || (number < 0) != (fill == 0xff) {
            return Err(Kind::Unsupported(
                "an integer of more than 64 bits".to_owned(),
            ));
        }
        Ok(Value::Int(number))
    }

    /// Executes one opcode; true at the end.
    fn step(&mut self) -> Step<bool> {
        let opcode = match self.input.bytes.get(self.input.at) {
            Some(&opcode) => opcode,
            None => return Err(Kind::Truncated("the pickle, before its end mark")),
        };
        self.input.at += 1;
        match opcode {
            b'.' => {
                self.pickle.root = self.pop()?;
                return Ok(true);
            }
            0x80 => {
                let version = self.input.u8()?;
                if version > NEWEST {
                    return Err(Kind::Unsupported(format!(
                        "pickle protocol {version}; {NEWEST} is the newest known"
                    )));
                }
            }
            // A frame only says how much to read ahead.
            0x95 => {
                let length = self.input.u64()?;
                if length > (self.input.bytes.len() - self.input.at) as u64 {
                    return Err(Kind::Truncated("a frame"));
                }
            }
            b'(' => {
                if self.marks.len() >= self.limits.depth {
                    return Err(Kind::Limit {
                        what: "open marks",
                        limit: self.limits.depth as u64,
                    });
                }
                self.marks.push(self.stack.len());
            }
            b'0' => {
                // POP on a mark takes the mark away.
                if self.stack.len() > self.floor() {
                    self.stack.pop();
                } else if self.marks.pop().is_none() {
                    return malformed("nothing on the stack");
                }
            }
            b'1' => drop(self.pop_mark()?),
            b'2' => {
                let value = self.top()?;
                self.push(value)?;
            }

            // Plain values.
            b'N' => self.push(Value::None)?,
            0x88 => self.push(Value::Bool(true))?,
            0x89 => self.push(Value::Bool(false))?,
            b'J' => {
                let number = i32::from_le_bytes(self.input.array()?);
                self.push(Value::Int(number.into()))?;
            }
            b'K' => {
                let number = self.input.u8()?;
                self.push(Value::Int(number.into()))?;
            }
            b'M' => {
                let number = u16::from_le_bytes(self.input.array()?);
                self.push(Value::Int(number.into()))?;
            }
            0x8a => {
                let count = self.input.u8()?;
                let value = Self::long(self.input.take(count.into(), "an integer")?)?;
                self.push(value)?;
            }
            0x8b => {
                let count = self.input.u32()?;
                let value = Self::long(self.input.take(count.into(), "an integer")?)?;
                self.push(value)?;
            }
            b'I' => {
                let value = match self.input.text_line()? {
                    "00" => Value::Bool(false),
                    "01" => Value::Bool(true),
                    line => match line.trim().parse() {
                        Ok(number) => Value::Int(number),
                        Err(_) => return malformed(format!("`{}` is no integer", shown(line))),
                    },
                };
                self.push(value)?;
            }
            b'L' => {
                let line = self.input.text_line()?;
                match line.trim_end_matches('L').parse() {
                    Ok(number) => self.push(Value::Int(number))?,
                    Err(_) => {
                        return malformed(format!("`{}` is no integer of 64 bits", shown(line)));
                    }
                }
            }
            b'F' => {
                let line = self.input.text_line()?;
                match line.trim().parse() {
                    Ok(number) => self.push(Value::Float(number))?,
                    Err(_) => return malformed(format!("`{}` is no float", shown(line))),
                }
            }
            b'G' => {
                let number = f64::from_be_bytes(self.input.array()?);
                self.push(Value::Float(number))?;
            }

            // Texts and bytes.
            b'X' => {
                let count = self.input.u32()?;
                let text = self.input.utf8(count.into())?;
                self.push(text)?;
            }
            0x8c => {
                let count = self.input.u8()?;
                let text = self.input.utf8(count.into())?;
                self.push(text)?;
            }
            0x8d => {
                let count = self.input.u64()?;
                let text = self.input.utf8(count)?;
                self.push(text)?;
            }
            b'V' => {
                let line = self.input.line()?;
                let text = raw_unicode_escape(line)?;
                let handle = self.own(text.into_bytes())?;
                self.push(Value::OwnedStr(handle))?;
            }
            // SHORT_BINSTRING and BINSTRING are Python 2's strings.
            b'C' | b'U' => {
                let count = self.input.u8()?;
                let bytes = self.input.take(count.into(), "bytes")?;
                self.push(Value::Bytes(bytes))?;
            }
            b'B' | b'T' => {
                let count = self.input.u32()?;
                let bytes = self.input.take(count.into(), "bytes")?;
                self.push(Value::Bytes(bytes))?;
            }
            0x8e | 0x96 => {
                let count = self.input.u64()?;
                let bytes = self.input.take(count, "bytes")?;
                self.push(Value::Bytes(bytes))?;
            }
            b'S' => {
                return Err(Kind::Unsupported(
                    "a text as Python 2 wrote it with protocol 0: write the file again with protocol 2 or newer".to_owned(),
                ));
            }

            // Containers.
            b']' | 0x8f => {
                let handle = self.container(Vec::new())?;
                self.push(Value::List(handle))?;
            }
            b'l' | 0x91 => {
                let items = self.pop_mark()?;
                let handle = self.container(items)?;
                self.push(Value::List(handle))?;
            }
            b'a' => {
                let item = self.pop()?;
                self.append(vec![item])?;
            }
            b'e' | 0x90 => {
                let items = self.pop_mark()?;
                self.append(items)?;
            }
            b')' => self.tuple(Vec::new())?,
            b't' => {
                let items = self.pop_mark()?;
                self.tuple(items)?;
            }
            0x85..=0x87 => {
                let mut items = vec![Value::None; usize::from(opcode - 0x84)];
                for slot in items.iter_mut().rev() {
                    *slot = self.pop()?;
                }
                self.tuple(items)?;
            }
            b'}' => {
                let handle = self.container(Vec::new())?;
                self.push(Value::Dict(handle))?;
            }
            b'd' => {
                let items = self.pop_mark()?;
                let handle = self.container(Vec::new())?;
                self.push(Value::Dict(handle))?;
                self.set_items(items)?;
            }
            b's' => {
                let value = self.pop()?;
                let key = self.pop()?;
                self.set_items(vec![key, value])?;
            }
            b'u' => {
                let items = self.pop_mark()?;
                self.set_items(items)?;
            }

            // The memo.
            0x94 => {
                let Ok(index) = u32::try_from(self.memo.len()) else {
                    return malformed("too many memo entries");
                };
                self.remember(index)?;
            }
            b'q' => {
                let index = self.input.u8()?;
                self.remember(index.into())?;
            }
            b'r' => {
                let index = self.input.u32()?;
                self.remember(index)?;
            }
            b'h' => {
                let index = self.input.u8()?;
                self.recall(index.into())?;
            }
            b'j' => {
                let index = self.input.u32()?;
                self.recall(index)?;
            }
            b'p' | b'g' => {
                let line = self.input.text_line()?;
                let Ok(index) = line.trim().parse() else {
                    return malformed(format!("`{}` is no memo entry", shown(line)));
                };
                if opcode == b'p' {
                    self.remember(index)?
                } else {
                    self.recall(index)?
                }
            }

            // Names, and what is done with them.
            b'c' => {
                let module = self.input.text_line()?;
                let name = self.input.text_line()?;
                self.global(module, name)?;
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                let (Some(module), Some(name)) = (self.pickle.text(module), self.pickle.text(name))
                else {
                    return malformed("a name that is no text");
                };
                let (module, name) = (module.to_owned(), name.to_owned());
                self.global(&module, &name)?;
            }
            b'R' => self.reduce()?,
            b'b' => self.build()?,
            b'i' => {
                let module = self.input.text_line()?;
                let name = self.input.text_line()?;
                return Err(Kind::Global(format!("{}.{}", shown(module), shown(name))));
            }
            b'o' => return Err(Kind::Opcode("OBJ (make an object)")),
            0x81 => return Err(Kind::Opcode("NEWOBJ (make an object)")),
            0x92 => return Err(Kind::Opcode("NEWOBJ_EX (make an object)")),
            b'P' | b'Q' => return Err(Kind::Opcode("PERSID (an object kept outside the file)")),
            0x82..=0x84 => return Err(Kind::Opcode("EXT (an object from a registry)")),
            0x97 | 0x98 => return Err(Kind::Opcode("NEXT_BUFFER (data kept outside the file)")),
            other => return Err(Kind::NoOpcode(other)),
        }
        Ok(false)
    }
}
