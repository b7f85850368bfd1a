"""Logging: one handler per program, lines for people or for machines."""

import json
import logging

from common.logs import set_up


def test_one_line_per_message_on_stderr_and_never_twice(capsys):
    set_up()
    set_up()
    logging.getLogger("server.rounds").info("round %d", 3)
    logging.getLogger("server.rounds").debug("not shown")
    out, err = capsys.readouterr()
    assert out == ""
    assert err.count("round 3") == 1
    assert "server.rounds: round 3" in err
    assert "not shown" not in err


def test_json_lines_carry_fields_and_the_traceback(capsys):
    set_up("DEBUG", as_json=True)
    logging.getLogger("client.guard").info('says "so"\nand more')
    try:
        raise ValueError("here")
    except ValueError:
        logging.getLogger("client.guard").debug("details", exc_info=True)
    first, second = map(json.loads, capsys.readouterr().err.splitlines())
    assert (first["level"], first["logger"], first["message"]) == ("INFO", "client.guard", 'says "so"\nand more')
    assert first["time"].endswith("+00:00")
    assert "error" not in first
    assert "ValueError: here" in second["error"]


def test_loggers_of_other_packages_are_left_alone():
    before = logging.getLogger().handlers[:], logging.getLogger("flwr").handlers[:]
    set_up()
    assert (logging.getLogger().handlers, logging.getLogger("flwr").handlers) == before
