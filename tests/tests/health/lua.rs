//! The scripts, run as Argo CD runs those of its `ConfigMap`: Lua 5.1 with the base and table libraries only.

use std::{fs, path::PathBuf};

use mlua::{Lua, LuaOptions, StdLib, Table};
use serde_json::Value;

/// The folder of a kind's scripts and their tests.
pub(crate) fn folder(kind: &str) -> PathBuf {
    let scripts = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../deploy/argocd/health/resource_customizations");
    scripts.join("portlane.dev").join(kind)
}

/// What a health check answers.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) status: String,
    pub(crate) message: String,
}

/// A script of a kind.
pub(crate) struct Script {
    lua: Lua,
    text: String,
}

impl Script {
    pub(crate) fn of(kind: &str, file: &str) -> Self {
        let path = folder(kind).join(file);
        let text = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let lua = Lua::new_with(StdLib::TABLE, LuaOptions::default()).expect("a Lua");
        Self { lua, text }
    }

    /// The answer about an object.
    pub(crate) fn health(&self, object: &Value) -> Health {
        let answer = self.run(object);
        let text = |key: &str| answer.get::<String>(key).unwrap_or_else(|error| panic!("{key}: {error}"));
        Health { status: text("status"), message: text("message") }
    }

    /// The names of the actions that a discovery offers, with their icons, sorted.
    pub(crate) fn actions(&self, object: &Value) -> Vec<(String, String)> {
        let answer = self.run(object);
        let pairs = answer.pairs::<String, Table>().map(|pair| pair.expect("a name and an action"));
        let mut all: Vec<_> =
            pairs.map(|(name, action)| (name, action.get::<String>("iconClass").expect("an icon"))).collect();
        all.sort();
        all
    }

    /// Whether the object that an action makes of `object` equals another one.
    pub(crate) fn makes(&self, object: &Value, expected: &Value) -> bool {
        let made = self.run(object);
        let expected = table(&self.lua, expected);
        let same = self.lua.load(SAME).eval::<mlua::Function>().expect("a function");
        same.call::<bool>((made, expected)).expect("an answer")
    }

    fn run(&self, object: &Value) -> Table {
        self.lua.globals().set("obj", table(&self.lua, object)).expect("a global");
        self.lua.load(self.text.as_str()).eval::<Table>().unwrap_or_else(|error| panic!("{error}\n{object}"))
    }
}

/// Compares two values in depth.
const SAME: &str = "
local function same(a, b)
  if type(a) ~= 'table' or type(b) ~= 'table' then return a == b end
  for key, value in pairs(a) do if not same(value, b[key]) then return false end end
  for key in pairs(b) do if a[key] == nil then return false end end
  return true
end
return same
";

/// A JSON object as a table of Lua.
fn table(lua: &Lua, object: &Value) -> Table {
    match value(lua, object) {
        mlua::Value::Table(table) => table,
        other => panic!("no object: {other:?}"),
    }
}

/// A JSON value in Lua: every number is a float, and null is nil, as in Argo CD.
fn value(lua: &Lua, json: &Value) -> mlua::Value {
    match json {
        Value::Null => mlua::Value::Nil,
        Value::Bool(flag) => mlua::Value::Boolean(*flag),
        Value::Number(number) => mlua::Value::Number(number.as_f64().expect("a float")),
        Value::String(text) => mlua::Value::String(lua.create_string(text).expect("a string")),
        Value::Array(items) => {
            let table = lua.create_table().expect("a table");
            for (at, item) in items.iter().enumerate() {
                table.set(at + 1, value(lua, item)).expect("an item");
            }
            mlua::Value::Table(table)
        }
        Value::Object(fields) => {
            let table = lua.create_table().expect("a table");
            for (name, field) in fields {
                table.set(name.as_str(), value(lua, field)).expect("a field");
            }
            mlua::Value::Table(table)
        }
    }
}
