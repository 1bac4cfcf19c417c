//! The opcodes, one by one.

use super::{
    PickleErrorKind as Kind, Value,
    cursor::{python2_string, raw_unicode_escape},
    error::{Step, malformed, shown},
    machine::Machine,
};

/// The newest protocol there is.
const NEWEST: u8 = 5;

impl<'a> Machine<'a> {
    /// A little-endian two's complement integer of any length.
    fn long(bytes: &'a [u8]) -> Value<'a> {
        let Some(&last) = bytes.last() else {
            return Value::Int(0);
        };
        let fill = if last & 0x80 == 0 { 0 } else { 0xff };
        let (low, high) = bytes.split_at(bytes.len().min(8));
        let mut eight = [fill; 8];
        eight[..low.len()].copy_from_slice(low);
        let number = i64::from_le_bytes(eight);
        if high.iter().any(|&b| b != fill) || (number < 0) != (fill == 0xff) {
            return Value::BigInt(bytes);
        }
        Value::Int(number)
    }

    /// An integer in decimal digits, of any length.
    fn decimal(line: &'a str) -> Step<Value<'a>> {
        if let Ok(number) = line.parse() {
            return Ok(Value::Int(number));
        }
        let digits = line.strip_prefix('-').unwrap_or(line);
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return malformed(format!("`{}` is not an integer", shown(line)));
        }
        Ok(Value::Decimal(line))
    }

    /// Executes one opcode; true at the end.
    #[expect(clippy::too_many_lines, reason = "one arm per opcode")]
    pub(super) fn step(&mut self) -> Step<bool> {
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
                let value = Self::long(self.input.take(count.into(), "an integer")?);
                self.push(value)?;
            }
            0x8b => {
                let count = self.input.u32()?;
                let value = Self::long(self.input.take(count.into(), "an integer")?);
                self.push(value)?;
            }
            b'I' => {
                let value = match self.input.text_line()? {
                    "00" => Value::Bool(false),
                    "01" => Value::Bool(true),
                    line => Self::decimal(line.trim())?,
                };
                self.push(value)?;
            }
            b'L' => {
                let line = self.input.text_line()?;
                let value = Self::decimal(line.strip_suffix('L').unwrap_or(line))?;
                self.push(value)?;
            }
            b'F' => {
                let line = self.input.text_line()?;
                match line.trim().parse() {
                    Ok(number) => self.push(Value::Float(number))?,
                    Err(_) => return malformed(format!("`{}` is not a float", shown(line))),
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
                let line = self.input.line()?;
                let handle = self.own(python2_string(line)?)?;
                self.push(Value::OwnedBytes(handle))?;
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
                let index = self.next_memo();
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
                    return malformed(format!("`{}` is not a memo entry", shown(line)));
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
                self.global(Value::Str(module), Value::Str(name))?;
            }
            0x93 => {
                let name = self.pop()?;
                let module = self.pop()?;
                self.global(module, name)?;
            }
            b'R' => {
                let args = self.pop()?;
                let callee = self.pop()?;
                self.call(callee, args)?;
            }
            b'b' => self.build()?,
            // INST: the class by name, its arguments back to the mark.
            b'i' => {
                let module = self.input.text_line()?;
                let name = self.input.text_line()?;
                let args = self.pop_mark()?;
                self.global(Value::Str(module), Value::Str(name))?;
                let class = self.pop()?;
                let args = Value::Tuple(self.container(args)?);
                self.call(class, args)?;
            }
            // OBJ: the class and its arguments back to the mark.
            b'o' => {
                let mut args = self.pop_mark()?;
                if args.is_empty() {
                    return malformed("an object without a class");
                }
                let class = args.remove(0);
                let args = Value::Tuple(self.container(args)?);
                self.call(class, args)?;
            }
            // NEWOBJ.
            0x81 => {
                let args = self.pop()?;
                let class = self.pop()?;
                self.call(class, args)?;
            }
            // NEWOBJ_EX: named arguments as well.
            0x92 => {
                let named = self.pop()?;
                let args = self.pop()?;
                let class = self.pop()?;
                self.call_with_names(class, args, named)?;
            }
            b'P' => {
                let id = self.input.text_line()?;
                self.persistent(Value::Str(id))?;
            }
            b'Q' => {
                let id = self.pop()?;
                self.persistent(id)?;
            }
            0x82..=0x84 => return Err(Kind::Opcode("EXT (a class from a registry)")),
            0x97 | 0x98 => return Err(Kind::Opcode("NEXT_BUFFER (data kept outside the file)")),
            other => return Err(Kind::NoOpcode(other)),
        }
        Ok(false)
    }
}
