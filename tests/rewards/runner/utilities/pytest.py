def raises(expected, call):
    try:
        call()
    except expected:
        return
    raise AssertionError("DID NOT RAISE")
