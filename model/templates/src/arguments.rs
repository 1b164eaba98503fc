//! Positional and named arguments of a call.

use super::{
    fail::{Res, fail},
    syntax::Name,
    value::Value,
};

/// Evaluated arguments.
#[derive(Default)]
pub(super) struct Arguments {
    pub(super) positional: Vec<Value>,
    pub(super) named: Vec<(Name, Value)>,
}

/// The arguments of `what` in the order of `names`. A name that starts with `*` is positional only; the first
/// `required` ones are mandatory.
pub(super) fn bind<const N: usize>(
    what: &str,
    names: [&str; N],
    required: usize,
    args: Arguments,
) -> Res<[Option<Value>; N]> {
    if args.positional.len() > N {
        return fail(format!("{what}: expected at most {N} arguments, got {}", args.positional.len()));
    }
    let mut bound = [const { None }; N];
    for (place, value) in bound.iter_mut().zip(args.positional) {
        *place = Some(value);
    }
    for (name, value) in args.named {
        match names.iter().position(|known| *known == &*name) {
            Some(at) if bound[at].is_none() => bound[at] = Some(value),
            Some(_) => return fail(format!("{what}: got the argument {name:?} twice")),
            None => return fail(format!("{what}: got an unknown argument {name:?}")),
        }
    }
    if let Some(at) = bound[..required].iter().position(Option::is_none) {
        return fail(format!("{what}: expected the argument {:?}, got none", names[at].trim_start_matches('*')));
    }
    Ok(bound)
}

/// An integer argument.
pub(super) fn whole(what: &str, value: Option<Value>, default: i64) -> Res<i64> {
    match value {
        None => Ok(default),
        Some(value) => match value.whole() {
            Some(i) => Ok(i),
            None => fail(format!("{what}: expected an integer, got {}", value.kind())),
        },
    }
}
