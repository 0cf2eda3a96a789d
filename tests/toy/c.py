from tests.toy import work

if __name__ == "__main__":
    work.main("toy-c")
