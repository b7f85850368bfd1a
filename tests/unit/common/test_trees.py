"""Two copies of the code in one process are noticed."""

import pytest

from common.errors import ProtocolError
from common.trees import refuse_two_trees


def test_the_app_beside_common_is_accepted(root):
    refuse_two_trees(str(root / "server" / "app.py"))


def test_a_link_to_the_same_tree_is_the_same_tree(root, tmp_path):
    (tmp_path / "link").symlink_to(root)
    refuse_two_trees(str(tmp_path / "link" / "client" / "app.py"))


def test_another_tree_is_refused_with_both_folders(root, tmp_path):
    with pytest.raises(ProtocolError) as error:
        refuse_two_trees(str(tmp_path / "client" / "app.py"))
    assert str(tmp_path) in str(error.value)
    assert str(root) in str(error.value)
