//! The stack machine that a pickle is a program for, without its power to call anything.

use super::{
    Class, Container, Global, Handle, Limits, Pickle, PickleError, PickleErrorKind as Kind, Value,
    array::Array,
    cursor::Cursor,
    error::{Step, malformed},
};

impl<'a> Pickle<'a> {
    /// Reads one pickle from the start of `bytes`; what follows its end is ignored, as Python does.
    ///
    /// # Errors
    /// Anything over `limits`, anything malformed, with the offset.
    pub fn read(bytes: &'a [u8], limits: Limits) -> Result<Self, PickleError> {
        Self::read_at(bytes, 0, limits)
    }

    /// Reads the pickle that begins at `offset`: some files hold several, one after the other
    /// ([`Pickle::end`]). Offsets in errors count from the start of `bytes`.
    ///
    /// # Errors
    /// As [`Pickle::read`].
    pub fn read_at(bytes: &'a [u8], offset: usize, limits: Limits) -> Result<Self, PickleError> {
        Machine::new(bytes, offset, limits).run()
    }
}

pub(super) struct Machine<'a> {
    pub(super) input: Cursor<'a>,
    /// Where the current opcode began.
    op: usize,
    pub(super) limits: Limits,
    pub(super) stack: Vec<Value<'a>>,
    /// Heights of the stack at open marks.
    pub(super) marks: Vec<usize>,
    /// Python numbers its memo from 0 on without gaps, so a list does.
    memo: Vec<Option<Value<'a>>>,
    /// How many of them are written.
    remembered: u32,
    objects: usize,
    owned_bytes: usize,
    pub(super) pickle: Pickle<'a>,
}

impl<'a> Machine<'a> {
    pub(super) fn new(bytes: &'a [u8], offset: usize, limits: Limits) -> Self {
        let at = offset.min(bytes.len());
        Self {
            input: Cursor { bytes, at },
            op: at,
            limits,
            stack: Vec::new(),
            marks: Vec::new(),
            memo: Vec::new(),
            remembered: 0,
            objects: 0,
            owned_bytes: 0,
            pickle: Pickle {
                root: Value::None,
                containers: Vec::new(),
                arrays: Vec::new(),
                dtypes: Vec::new(),
                classes: Vec::new(),
                objects: Vec::new(),
                persistent: Vec::new(),
                owned: Vec::new(),
                end: at,
            },
        }
    }

    pub(super) fn run(mut self) -> Result<Pickle<'a>, PickleError> {
        loop {
            self.op = self.input.at;
            match self.step() {
                Ok(false) => {}
                Ok(true) => {
                    self.pickle.end = self.input.at;
                    return Ok(self.pickle);
                }
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

    pub(super) fn charge(&mut self, count: usize) -> Step {
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
    pub(super) fn own(&mut self, bytes: Vec<u8>) -> Step<Handle> {
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

    pub(super) fn push(&mut self, value: Value<'a>) -> Step {
        if self.stack.len() >= self.limits.stack {
            return Err(Kind::Limit {
                what: "values on the stack",
                limit: self.limits.stack as u64,
            });
        }
        self.stack.push(value);
        Ok(())
    }

    pub(super) fn floor(&self) -> usize {
        self.marks.last().copied().unwrap_or(0)
    }

    pub(super) fn pop(&mut self) -> Step<Value<'a>> {
        if self.stack.len() > self.floor()
            && let Some(value) = self.stack.pop()
        {
            return Ok(value);
        }
        malformed("nothing on the stack")
    }

    pub(super) fn top(&self) -> Step<Value<'a>> {
        match self.stack.last() {
            Some(value) if self.stack.len() > self.floor() => Ok(*value),
            _ => malformed("nothing on the stack"),
        }
    }

    pub(super) fn pop_mark(&mut self) -> Step<Vec<Value<'a>>> {
        match self.marks.pop() {
            Some(height) if height <= self.stack.len() => Ok(self.stack.split_off(height)),
            _ => malformed("no open mark"),
        }
    }

    // Values.

    pub(super) fn depth_of(&self, value: Value<'a>) -> usize {
        match value {
            Value::Tuple(handle) | Value::List(handle) | Value::Dict(handle) => {
                self.pickle.container(handle).map_or(0, |c| c.depth)
            }
            Value::Object(handle) => self
                .pickle
                .objects
                .get(handle.0 as usize)
                .map_or(0, |object| object.depth),
            Value::Persistent(handle) => self
                .pickle
                .persistent
                .get(handle.0 as usize)
                .map_or(0, |id| self.depth_of(*id) + 1),
            _ => 0,
        }
    }

    /// Refuses what is nested too deep.
    pub(super) fn check_depth(&self, depth: usize) -> Step<usize> {
        if depth > self.limits.depth {
            return Err(Kind::Limit {
                what: "levels of nesting",
                limit: self.limits.depth as u64,
            });
        }
        Ok(depth)
    }

    pub(super) fn container(&mut self, items: Vec<Value<'a>>) -> Step<Handle> {
        self.charge(4)?;
        self.pickle.containers.push(Container::default());
        let handle = Handle(self.pickle.containers.len() as u32 - 1);
        self.extend(handle, items)?;
        Ok(handle)
    }

    pub(super) fn extend(&mut self, handle: Handle, items: Vec<Value<'a>>) -> Step {
        self.charge(items.len())?;
        let deepest = items
            .iter()
            .map(|item| self.depth_of(*item) + 1)
            .max()
            .unwrap_or(0);
        self.check_depth(deepest)?;
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

    pub(super) fn append(&mut self, items: Vec<Value<'a>>) -> Step {
        match self.top()? {
            Value::List(handle) => self.extend(handle, items),
            object @ Value::Object(_) => self.append_to_object(object, items),
            other => malformed(format!("items for {}", other.kind())),
        }
    }

    pub(super) fn set_items(&mut self, items: Vec<Value<'a>>) -> Step {
        if !items.len().is_multiple_of(2) {
            return malformed("a key without a value");
        }
        match self.top()? {
            Value::Dict(handle) => self.extend(handle, items),
            object @ Value::Object(_) => self.set_in_object(object, items),
            other => malformed(format!("keys for {}", other.kind())),
        }
    }

    pub(super) fn tuple(&mut self, items: Vec<Value<'a>>) -> Step {
        let handle = self.container(items)?;
        self.push(Value::Tuple(handle))
    }

    /// The number of the next memo entry that MEMOIZE writes.
    pub(super) fn next_memo(&self) -> u32 {
        self.remembered
    }

    pub(super) fn remember(&mut self, index: u32) -> Step {
        let value = self.top()?;
        let at = index as usize;
        if at >= self.limits.memo {
            return Err(Kind::Limit {
                what: "memo entries",
                limit: self.limits.memo as u64,
            });
        }
        if at >= self.memo.len() {
            self.memo.resize(at + 1, None);
        }
        if self.memo[at].replace(value).is_none() {
            self.remembered += 1;
        }
        Ok(())
    }

    pub(super) fn recall(&mut self, index: u32) -> Step {
        match self.memo.get(index as usize) {
            Some(Some(value)) => self.push(*value),
            _ => malformed(format!("memo entry {index}, which was never written")),
        }
    }

    pub(super) fn global(&mut self, module: Value<'a>, name: Value<'a>) -> Step {
        let (Some(text), Some(name_text)) = (self.pickle.text(module), self.pickle.text(name))
        else {
            return malformed("a name that is not text");
        };
        if let Some(global) = Global::find(text, name_text) {
            return self.push(Value::Global(global));
        }
        self.charge(2)?;
        self.pickle.classes.push(Class { module, name });
        self.push(Value::Class(Handle(self.pickle.classes.len() as u32 - 1)))
    }

    pub(super) fn new_array(&mut self, array: Array<'a>) -> Step<Value<'a>> {
        self.charge(4 + array.shape.len())?;
        self.pickle.arrays.push(array);
        Ok(Value::Array(Handle(self.pickle.arrays.len() as u32 - 1)))
    }
}
