from service.settings import Settings, misspelt


def test_a_misspelt_variable_is_told_with_the_nearest_name() -> None:
    lines = misspelt({"ALIGNSEG_MAX_BODY": "1", "ALIGNSEG_QQQ": "1", "ALIGNSEG_MODEL": "x", "HOME": "/"})
    assert lines == [
        "Unknown setting ALIGNSEG_MAX_BODY, ignored. Did you mean ALIGNSEG_MAX_BODY_BYTES?",
        "Unknown setting ALIGNSEG_QQQ, ignored.",
    ]


def test_what_kubernetes_and_the_client_set_is_no_mistake() -> None:
    names = ["ALIGNSEG_SERVICE_HOST", "ALIGNSEG_SERVICE_PORT", "ALIGNSEG_PORT_8000_TCP_ADDR", "ALIGNSEG_API_KEY"]
    assert misspelt(dict.fromkeys(names, "x")) == []


def test_every_setting_is_known() -> None:
    assert misspelt({f"ALIGNSEG_{name.upper()}": "x" for name in Settings.model_fields}) == []
