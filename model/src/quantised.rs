//! Settings of quantised checkpoints. Input: configuration files, or names of tensors. Output: the settings of a
//! supported method, or an error that names another one; without it the tensors would only look broken.

use std::collections::BTreeMap;

use fovea_runtime::{
    network_ops::Format,
    weights::{Modules, Quantisation},
};
use serde_json::Value;

use crate::error::Error;

/// What is supported, and what to do, for messages.
const SUPPORTED: &str = "supported are safetensors of f32, f16 or bf16, MLX's affine codes of 4 or 8 bits in groups of \
     32, 64 or 128, and compressed-tensors' pack-quantized; use the original float checkpoint with --weights q4 or q8, \
     or an MLX or GGUF version";

/// How the tensors of a checkpoint are quantised; None if they are floats.
///
/// `config` is config.json; `own` are the files of older tools, or null if they do not exist.
///
/// # Errors
/// [`Error::Config`] with the method, its variant, and what is supported.
pub(crate) fn settings(config: &Value, own: &[(&str, Value)]) -> Result<Option<Quantisation>, Error> {
    let within = |keys: &[&str]| keys.iter().try_fold(config, |value, key| value.get(*key)).filter(|v| !v.is_null());
    // MLX writes `quantization`, and a copy of it as `quantization_config`. The text model can have its own settings.
    let places = [
        ("config.json: quantization", within(&["quantization"])),
        ("config.json: quantization_config", within(&["quantization_config"])),
        ("config.json: text_config.quantization_config", within(&["text_config", "quantization_config"])),
        ("config.json: compression_config", within(&["compression_config"])),
    ];
    let files = own.iter().map(|(file, value)| (*file, Some(value).filter(|v| !v.is_null())));
    let found = places.into_iter().chain(files).find_map(|(place, settings)| Some((place, settings?)));
    let Some((place, settings)) = found else { return Ok(None) };
    let text = |key: &str| settings.get(key).and_then(Value::as_str);
    let refused = |what: String| refused(place, &what);
    if place.ends_with(": quantization") && text("quant_method").is_none() {
        return mlx(place, settings).map(|modules| Some(Quantisation::Affine(modules)));
    }
    if text("quant_method") == Some("compressed-tensors") && text("format") == Some("pack-quantized") {
        return match unsupported(settings) {
            None => Ok(Some(Quantisation::Packed)),
            Some(what) => Err(refused(format!("compressed-tensors (pack-quantized, {what})"))),
        };
    }
    Err(refused(method(place, settings)))
}

/// The error for a method that is not supported.
fn refused(place: &str, what: &str) -> Error {
    Error::Config { key: place.to_owned(), why: format!("quantised with {what}: not supported; {SUPPORTED}") }
}

/// The modules of MLX's `quantization`: the settings of all, and by path those of a module, or false.
fn mlx(place: &str, settings: &Value) -> Result<Modules, Error> {
    // A value of a wrong type is a mistake in the file; a number or a mode of MLX may only be not supported.
    let wrong = |key: &str, expected: &str, got: &Value| {
        let mut got = got.to_string();
        if got.chars().count() > 80 {
            got = got.chars().take(80).collect::<String>() + "...";
        }
        let why = format!("expected {expected}, got {got}; correct config.json, or download it again");
        Error::Config { key: format!("{place}{key}"), why }
    };
    let format = |settings: &Value, path: &str, module: &str| {
        // The defaults are those of `QuantizedLinear` in MLX.
        let number = |key: &str, default: u64, supported: &str| match settings.get(key) {
            None => Ok(default),
            Some(value) => value.as_u64().ok_or_else(|| wrong(&format!("{path}.{key}"), supported, value)),
        };
        let bits = number("bits", 4, "the number 4 or 8")?;
        let group = number("group_size", 64, "the number 32, 64 or 128")?;
        let mode = match settings.get("mode") {
            None => "affine",
            Some(mode) => mode.as_str().ok_or_else(|| wrong(&format!("{path}.mode"), "\"affine\"", mode))?,
        };
        match (mode, bits, group) {
            ("affine", 4 | 8, 32 | 64 | 128) => Ok(Format { bits: bits as u32, minimum: true, group: group as u32 }),
            ("affine", ..) => Err(refused(place, &format!("MLX ({bits} bits, group {group}{module})"))),
            _ => Err(refused(place, &format!("MLX ({mode}{module})"))),
        }
    };
    let Some(modules) = settings.as_object() else {
        return Err(wrong("", "an object with bits and group_size", settings));
    };
    let all = format(settings, "", "")?;
    let mut own = BTreeMap::new();
    for (module, settings) in modules {
        match settings {
            Value::Object(_) => {
                let format = format(settings, &format!(".{module}"), &format!(", for {module}"))?;
                own.insert(module.clone(), Some(format))
            }
            Value::Bool(false) => own.insert(module.clone(), None),
            _ => None,
        };
    }
    Ok(Modules { all, own })
}

/// What of compressed-tensors' settings is not supported.
fn unsupported(settings: &Value) -> Option<String> {
    let given =
        |value: Option<&Value>| value.is_some_and(|v| !v.is_null() && v.as_object().is_none_or(|o| !o.is_empty()));
    if given(settings.get("transform_config")) {
        return Some("with a transform".to_owned());
    }
    for group in settings.get("config_groups").and_then(Value::as_object).into_iter().flat_map(|groups| groups.values())
    {
        let text = |key: &str| group.pointer(&format!("/weights/{key}")).and_then(Value::as_str);
        let bits = group.pointer("/weights/num_bits").and_then(Value::as_u64);
        if let Some(bits) = bits.filter(|bits| ![4, 8].contains(bits)) {
            return Some(format!("{bits} bits"));
        }
        if let Some(other) = group.get("format").and_then(Value::as_str).filter(|&format| format != "pack-quantized") {
            return Some(format!("mixed with {other}"));
        }
        if ["input_activations", "output_activations"].iter().any(|key| given(group.get(key))) {
            return Some("with quantised activations".to_owned());
        }
        for (key, supported) in
            [("type", &["int"] as &[&str]), ("strategy", &["group", "channel"]), ("actorder", &["weight", "static"])]
        {
            if let Some(other) = text(key).filter(|found| !supported.contains(found)) {
                return Some(format!("{key} {other}"));
            }
        }
    }
    None
}

/// The error where the settings say that codes have zero points, and the files have none: the codes would be read as
/// symmetric ones.
///
/// `config` is config.json. `names` are those of all tensors.
pub(crate) fn without_zero_points<'a>(config: &Value, mut names: impl Iterator<Item = &'a str>) -> Option<Error> {
    let settings = ["quantization_config", "compression_config"].into_iter().find_map(|key| config.get(key));
    let groups = settings?.get("config_groups")?.as_object()?;
    let asymmetric = |group: &Value| group.pointer("/weights/symmetric") == Some(&Value::Bool(false));
    if groups.is_empty() || !groups.values().all(asymmetric) || names.any(|name| name.ends_with(".weight_zero_point")) {
        return None;
    }
    let why = "expected tensors with the name .weight_zero_point, because symmetric is false in config.json, got none; \
               download config.json and weights again, from one repository";
    Some(Error::Config { key: "config.json: quantization_config".to_owned(), why: why.to_owned() })
}

/// The method and its variant, such as `bitsandbytes (nf4)` or `gptq (4 bits)`.
fn method(place: &str, settings: &Value) -> String {
    let text = |key: &str| settings.get(key).and_then(Value::as_str);
    let flag = |key: &str| settings.get(key).and_then(Value::as_bool) == Some(true);
    let bits = ["bits", "w_bit", "nbits", "num_bits", "weight_bits"];
    let bits = bits.into_iter().find_map(|key| settings.get(key)?.as_u64()).map(|bits| format!("{bits} bits"));
    let bitsandbytes = flag("load_in_4bit") || flag("load_in_8bit") || flag("_load_in_4bit") || flag("_load_in_8bit");
    let listed = || settings.as_str().or_else(|| settings.get("quantization")?.get("quant_algo")?.as_str());
    let name = match text("quant_method").or_else(|| text("quant_type")).or_else(listed) {
        Some(name) => name.to_owned(),
        None if bitsandbytes => "bitsandbytes".to_owned(),
        None if place == "quantize_config.json" => "gptq".to_owned(),
        None if place == "quant_config.json" => "awq".to_owned(),
        None => "an unnamed method".to_owned(),
    };
    let kind = if bitsandbytes && (flag("load_in_8bit") || flag("_load_in_8bit")) {
        Some("int8".to_owned())
    } else {
        ["bnb_4bit_quant_type", "format", "fmt", "weight_format", "weights"]
            .into_iter()
            .find_map(text)
            .map(str::to_owned)
    };
    match kind.or(bits) {
        Some(kind) => format!("{name} ({kind})"),
        None => name,
    }
}

/// The method of quantisation that the names of all tensors show, if any. For a checkpoint in which no file names it.
pub(crate) fn by_tensors<'a>(mut names: impl Iterator<Item = &'a str>) -> Option<&'static str> {
    const SIGNS: [(&str, &str); 9] = [
        (".weight.absmax", "bitsandbytes (4 bits)"),
        (".weight.quant_state", "bitsandbytes (4 bits)"),
        (".SCB", "bitsandbytes (int8)"),
        (".qweight", "gptq or awq"),
        (".weight_packed", "compressed-tensors"),
        (".weight_scale_inv", "fp8"),
        (".weight_scale", "compressed-tensors or fp8"),
        (".W_q", "hqq"),
        (".biases", "MLX"),
    ];
    names.find_map(|name| SIGNS.iter().find(|(sign, _)| name.contains(sign)).map(|(_, method)| *method))
}

/// The error message for a checkpoint whose tensors show a method of quantisation.
pub(crate) fn sentence(method: &str) -> String {
    let why = "as the names of its tensors show: not supported without settings in config.json";
    format!("quantised with {method}, {why}; {SUPPORTED}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(config: Value) -> String {
        settings(&config, &[]).map_or_else(|why| why.to_string(), |_| String::new())
    }

    #[test]
    fn methods_are_named() {
        let with = |settings: Value| refusal(json!({"model_type": "llava_next", "quantization_config": settings}));
        let nf4 = json!({"quant_method": "bitsandbytes", "load_in_4bit": true, "bnb_4bit_quant_type": "nf4"});
        for (settings, expected) in [
            (nf4, "bitsandbytes (nf4)"),
            (json!({"load_in_8bit": true}), "bitsandbytes (int8)"),
            (json!({"quant_method": "awq", "bits": 4, "version": "gemm"}), "awq (4 bits)"),
            (json!({"quant_method": "gptq", "bits": 8}), "gptq (8 bits)"),
            (
                json!({"quant_method": "compressed-tensors", "format": "int-quantized"}),
                "compressed-tensors (int-quantized)",
            ),
            (json!({"quant_method": "fp8", "fmt": "e4m3"}), "fp8 (e4m3)"),
            (json!({"quant_method": "hqq"}), "hqq"),
            (json!({}), "an unnamed method"),
            (json!("awq"), "awq"),
        ] {
            let why = with(settings);
            assert!(why.contains(&format!("quantised with {expected}: not supported; supported are")), "{why}");
        }
        assert!(refusal(json!({"text_config": {"quantization_config": {"quant_method": "awq"}}})).contains("awq"));
        assert_eq!(refusal(json!({"model_type": "llava_next", "quantization_config": null})), "");
    }

    #[test]
    fn settings_of_mlx_are_those_of_each_module() {
        let own = json!({"bits": 8, "group_size": 32});
        let config = json!({"bits": 4, "group_size": 64, "mode": "affine", "a.b": own, "c": false, "d": true, "e": {}});
        let both = json!({"quantization": config, "quantization_config": config});
        let Ok(Some(Quantisation::Affine(modules))) = settings(&both, &[]) else { panic!("expected settings of MLX") };
        let format = |bits, group| Format { bits, minimum: true, group };
        assert_eq!(modules.all, format(4, 64));
        let expected = [("a.b", Some(format(8, 32))), ("c", None), ("e", Some(format(4, 64)))];
        assert_eq!(modules.own, expected.map(|(module, format)| (module.to_owned(), format)).into());
        for (config, expected) in [
            (json!({"bits": 3, "group_size": 64}), "MLX (3 bits, group 64)"),
            (json!({"bits": 4, "group_size": 16}), "MLX (4 bits, group 16)"),
            (json!({"bits": 4, "group_size": 32, "mode": "mxfp4"}), "MLX (mxfp4)"),
            (json!({"bits": 4, "group_size": 64, "lm_head": {"bits": 6}}), "MLX (6 bits, group 64, for lm_head)"),
        ] {
            let why = refusal(json!({"quantization": config}));
            assert!(why.contains(expected) && why.contains("--weights q4"), "{why}");
            assert!(why.contains("4 or 8 bits in groups of 32, 64 or 128"), "{why}");
        }
        for (config, expected) in [
            (json!({"bits": "4"}), ".bits: expected the number 4 or 8, got \"4\"; correct config.json"),
            (json!({"bits": null}), ".bits: expected the number 4 or 8, got null; correct config.json"),
            (json!({"bits": -4}), ".bits: expected the number 4 or 8, got -4;"),
            (json!({"group_size": 64.5}), ".group_size: expected the number 32, 64 or 128, got 64.5;"),
            (json!({"mode": 1}), ".mode: expected \"affine\", got 1;"),
            (json!({"lm_head": {"bits": []}}), ".lm_head.bits: expected the number 4 or 8, got [];"),
            (json!([]), ": expected an object with bits and group_size, got [];"),
            (json!("q4"), ": expected an object with bits and group_size, got \"q4\";"),
        ] {
            let why = refusal(json!({"quantization": config}));
            assert!(why.starts_with(&format!("config.json: quantization{expected}")), "{expected}: {why}");
        }
    }

    #[test]
    fn settings_of_compressed_tensors_are_supported_or_named() {
        let config = |key: &str, value: Value| {
            let mut weights =
                json!({"num_bits": 4, "type": "int", "symmetric": true, "strategy": "group", "group_size": 128});
            let mut group = json!({"input_activations": null, "targets": ["Linear"]});
            let place = if key == "input_activations" { &mut group } else { &mut weights };
            place[key] = value;
            group["weights"] = weights;
            json!({"quantization_config": {
                "quant_method": "compressed-tensors", "format": "pack-quantized", "config_groups": {"group_0": group},
            }})
        };
        let good = settings(&config("actorder", json!("static")), &[]);
        assert!(matches!(good, Ok(Some(Quantisation::Packed))), "{good:?}");
        for (key, value, expected) in [
            ("num_bits", json!(2), "2 bits"),
            ("type", json!("float"), "type float"),
            ("strategy", json!("tensor"), "strategy tensor"),
            ("actorder", json!("group"), "actorder group"),
            ("input_activations", json!({"num_bits": 8}), "with quantised activations"),
        ] {
            let why = refusal(config(key, value));
            assert!(why.contains(&format!("compressed-tensors (pack-quantized, {expected}): not supported")), "{why}");
        }
    }
}
