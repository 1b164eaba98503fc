//! Detects quantised checkpoints, which are not supported. Input: configuration files, or names of tensors. Output: an error
//! that names the method of quantisation; without it the tensors would only look broken.

use serde_json::Value;

use crate::error::Error;

/// What is supported, for messages.
const SUPPORTED: &str = "supported are checkpoints in safetensors whose values are f32, f16 or bf16";

/// Refuses a checkpoint whose configuration names a method of quantisation.
///
/// `config` is config.json; `own` are the files of older tools, or null if they do not exist.
///
/// # Errors
/// [`Error::Config`] with the method, its variant, and what is supported.
pub(crate) fn refuse(config: &Value, own: &[(&str, Value)]) -> Result<(), Error> {
    let within = |keys: &[&str]| keys.iter().try_fold(config, |value, key| value.get(*key)).filter(|v| !v.is_null());
    // MLX writes `quantization`; the text model can have its own settings.
    let places = [
        ("config.json: quantization_config", within(&["quantization_config"])),
        ("config.json: text_config.quantization_config", within(&["text_config", "quantization_config"])),
        ("config.json: compression_config", within(&["compression_config"])),
        ("config.json: quantization", within(&["quantization"])),
    ];
    let files = own.iter().map(|(file, value)| (*file, Some(value).filter(|v| !v.is_null())));
    match places.into_iter().chain(files).find_map(|(place, settings)| Some((place, settings?))) {
        None => Ok(()),
        Some((place, settings)) => {
            let why = format!("quantised with {}: not supported; {SUPPORTED}", method(place, settings));
            Err(Error::Config { key: place.to_owned(), why })
        }
    }
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
        None if place.ends_with(": quantization") => "MLX".to_owned(),
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
    const SIGNS: [(&str, &str); 8] = [
        (".weight.absmax", "bitsandbytes (4 bits)"),
        (".weight.quant_state", "bitsandbytes (4 bits)"),
        (".SCB", "bitsandbytes (int8)"),
        (".qweight", "gptq or awq"),
        (".weight_packed", "compressed-tensors"),
        (".weight_scale_inv", "fp8"),
        (".weight_scale", "compressed-tensors or fp8"),
        (".W_q", "hqq"),
    ];
    names.find_map(|name| SIGNS.iter().find(|(sign, _)| name.contains(sign)).map(|(_, method)| *method))
}

/// The error message for a checkpoint whose tensors show a method of quantisation.
pub(crate) fn sentence(method: &str) -> String {
    format!("quantised with {method}, as the names of its tensors show: not supported; {SUPPORTED}")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn refusal(config: Value) -> String {
        refuse(&config, &[]).map_or_else(|why| why.to_string(), |()| String::new())
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
                json!({"quant_method": "compressed-tensors", "format": "pack-quantized"}),
                "compressed-tensors (pack-quantized)",
            ),
            (json!({"quant_method": "fp8", "fmt": "e4m3"}), "fp8 (e4m3)"),
            (json!({"quant_method": "hqq"}), "hqq"),
            (json!({}), "an unnamed method"),
            (json!("awq"), "awq"),
        ] {
            let why = with(settings);
            assert!(why.contains(&format!("quantised with {expected}: not supported; supported are")), "{why}");
        }
        assert!(refusal(json!({"quantization": {"group_size": 64, "bits": 4}})).contains("MLX (4 bits)"));
        assert!(refusal(json!({"text_config": {"quantization_config": {"quant_method": "awq"}}})).contains("awq"));
        assert_eq!(refusal(json!({"model_type": "llava_next", "quantization_config": null})), "");
    }
}
