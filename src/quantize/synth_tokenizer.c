#include "quantize/synth_tokenizer.h"

const char synth_tokenizer_config_json[] =
    "{\n  \"tokenizer_class\": \"PreTrainedTokenizerFast\",\n  \"eos_token\": \"<|end|>\",\n"
    "  \"chat_template\": \"{% for message in messages %}{{ message['role'] }}: "
    "{{ message['content'] }}\\n{% endfor %}"
    "{% if add_generation_prompt %}assistant: {% endif %}\"\n}\n";

/* GPT-2's letters for bytes: itself where it is printable, else the next from U+0100 on. */
static uint32_t letter_of(int byte, int *next) {
    const bool printable =
        (byte >= '!' && byte <= '~') || (byte >= 0xA1 && byte <= 0xAC) || byte >= 0xAE;
    return printable ? (uint32_t)byte : 0x100u + (uint32_t)(*next)++;
}

void synth_tokenizer_json(struct str *out) {
    int next = 0;
    str_printf(out,
               "{\"version\": \"1.0\", \"truncation\": null, \"padding\": null, "
               "\"added_tokens\": [{\"id\": %d, \"content\": \"<|end|>\", \"single_word\": false, "
               "\"lstrip\": false, \"rstrip\": false, \"normalized\": false, \"special\": true}], "
               "\"normalizer\": null, \"pre_tokenizer\": {\"type\": \"ByteLevel\", "
               "\"add_prefix_space\": false, \"trim_offsets\": true, \"use_regex\": true}, "
               "\"post_processor\": null, \"decoder\": {\"type\": \"ByteLevel\", "
               "\"add_prefix_space\": true, \"trim_offsets\": true, \"use_regex\": true}, "
               "\"model\": {\"type\": \"BPE\", \"dropout\": null, \"unk_token\": null, "
               "\"continuing_subword_prefix\": null, \"end_of_word_suffix\": null, "
               "\"fuse_unk\": false, \"byte_fallback\": false, \"merges\": [], \"vocab\": {",
               SYNTH_TOKENIZER_EOS);
    for (int byte = 0; byte < 256; byte++) {
        char letter[4];
        size_t bytes = utf8_encode(letter_of(byte, &next), letter);
        if (byte > 0) str_add_text(out, ", ");
        str_add_json(out, letter, bytes);
        str_printf(out, ": %d", byte);
    }
    str_add_text(out, "}}}\n");
}
